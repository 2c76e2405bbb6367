"""Between memory and the spool directory: what moves to disk, and back in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from run_log.core import Message, SpoolError, Version
from run_log.core.forks import renewed
from run_log.core.logs import get_logger, logging_later

from ._capture import Content, Entry
from ._failure import text_of
from ._held import Held
from ._metrics import DropReason, say_loss
from ._segment import SpooledEvent
from ._spool import Spool
from ._transport import MAX_BATCH_BYTES, MAX_BATCH_EVENTS

_logger: Final = get_logger("run_log.producer")


class Disk:
    """Moves events between *held* and *spool*; where there is no spool, nothing moves.

    The delivery thread and a thread that closes the emitter may both come here, one at a time.

    Attributes:
        trouble: Why the last call could not use the directory; empty where it could.
    """

    def __init__(self, spool: Spool | None, held: Held, encode: Callable[[Content], Message]) -> None:
        self._spool = spool
        self._held = held
        self._encode = encode
        self._lock = renewed(self, "_lock", threading.Lock)
        self._lost = spool.lost if spool else 0
        self._corrupt = spool.corrupt if spool else 0
        self.trouble = ""
        self._is_closed = False

    def fill(self, *, events: int, data_bytes: int) -> bool:
        """Take the earliest events on disk in flight, as `Spool.next_batch` does; return whether any were."""
        if self._spool is None:
            return False
        with logging_later(), self._lock:
            if self._is_closed:
                return False  # the directory is for others now
            try:
                found = self._spool.next_batch(events=events, data_bytes=data_bytes)
            except SpoolError as error:
                self._tell(error)
                return False
            corrupt, self._corrupt = self._spool.corrupt - self._corrupt, self._spool.corrupt
            lost, self._lost = self._spool.lost - self._lost, self._spool.lost
            self._held.found_on_disk(self._spool.waiting, aside=self._spool.aside, corrupt=corrupt, lost=lost)
            self._held.take_from_disk([_entry(event) for event in found])
            return bool(found)

    def settle(self, entries: Iterable[Entry]) -> None:
        """Forget those of *entries* that came from disk: they are delivered, or given up."""
        on_disk = [entry for entry in entries if not entry.number]
        if self._spool is None or not on_disk:
            return
        with logging_later(), self._lock:
            try:
                self._spool.settle(on_disk)
            except SpoolError as error:
                self._tell(error)

    def put_aside(self, entries: Sequence[Entry], error: str) -> None:
        """Have *entries*, which are refused because of *error*, stand aside on disk; or drop them."""
        if self._spool is None:
            self._held.settle(entries, DropReason.REFUSED, error=error)
            return
        with logging_later(), self._lock:
            gone = self._held.put_aside(entries, error=error)
            try:
                self._spool.set_aside(entry for entry in gone if not entry.number)
            except SpoolError as failure:
                self._tell(failure)
            new = [_spooled(entry, entry.encode(self._encode)) for entry in gone if entry.number]
            try:
                if new:
                    self._spool.append(new, newer=self._held.newest, is_aside=True)
            except SpoolError as failure:
                for _ in new:
                    self._held.drop_for_disk(DropReason.REFUSED, error=error)
                self._tell(failure)
                new = []
            self._written(self._spool, len(new))

    def write_shed(self) -> None:
        if self._held.has_shed:
            self._write(lambda _spool: self._held.take_for_disk(0))

    def write_what_fits(self) -> None:
        """Write what a full buffer has shed, and of the rest as much as displaces nothing on disk."""
        # A record may be larger than its entry says: JSON takes up to six bytes for one of marshal's.
        self._write(lambda spool: self._held.take_for_disk(spool.room // 8))

    def write_all(self) -> None:
        """Write all that is held; what was in flight from disk is there anyway."""
        self._write(lambda _spool: self._held.take_all_for_disk())

    def close(self) -> None:
        if self._spool is not None:
            with logging_later(), self._lock:
                self._is_closed = True
                self._spool.close()

    def _write(self, take: Callable[[Spool], list[Entry]]) -> None:
        if self._spool is None:
            return
        with logging_later(), self._lock:
            left = self._encoded(take(self._spool))
            for batch in _batches(left):
                try:
                    self._spool.append(
                        [_spooled(entry, message) for entry, message in batch],
                        newer=self._held.newest,
                    )
                except SpoolError as error:
                    self._held.not_written([entry for entry, _ in (*batch, *left)])
                    self._tell(error)
                    return
                self.trouble = ""
                self._written(self._spool, len(batch))

    def _encoded(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Message]]:
        for entry in entries:
            try:
                message = entry.encode(self._encode)
            except BaseException as error:  # noqa: BLE001 - an event that cannot be encoded holds up no other
                self._held.drop_for_disk(DropReason.INVALID, error=text_of(error))
            else:
                yield entry, message

    def _written(self, spool: Spool, events: int) -> None:
        lost, self._lost = spool.lost - self._lost, spool.lost
        self._held.written(events, lost=lost, aside=spool.aside)

    def _tell(self, error: SpoolError) -> None:
        is_told, self.trouble = bool(self.trouble), str(error)
        if not is_told:
            _logger.error("run_log_spool_failed", error=self.trouble)


def keep_alone(
    held: Held, spool: Spool | None, encode: Callable[[Content], Message], *, is_lasting: bool
) -> None:
    """Write all that is held, or say that it is lost, while the interpreter is being torn down."""
    # No other thread runs any more, and any may have died with a lock: so these are new, and nothing is
    # logged. Nothing is published: gRPC would wait for threads, and Python 3.13.0 crashes where a store uses
    # `datetime`.
    held.renew_lock()
    held.absorb()
    disk = Disk(spool, held, encode)
    disk.write_all()
    disk.close()
    if held.stats.buffered and is_lasting:
        say_loss(
            "a run ended when the interpreter was being torn down, too late to be delivered; end it earlier "
            "(close its generator), or set RUN_LOG_SPOOL_DIR, where the next start finds what is left"
        )


def _batches(encoded: Iterator[tuple[Entry, Message]]) -> Iterator[list[tuple[Entry, Message]]]:
    """Yield what is *encoded* in batches as large as a publish call, so that little of it is held twice."""
    batch: list[tuple[Entry, Message]] = []
    size = 0
    for entry, message in encoded:
        batch.append((entry, message))
        size += entry.size
        if len(batch) >= MAX_BATCH_EVENTS or size >= MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _spooled(entry: Entry, message: Message) -> SpooledEvent:
    return SpooledEvent(entry.key, Version(*entry.version), message)


def _entry(event: SpooledEvent) -> Entry:
    entry = Entry(event.key, event.version, 0, None)
    entry.set_message(event.message)
    return entry
