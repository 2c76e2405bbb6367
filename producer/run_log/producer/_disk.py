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

    Args:
        spool: The directory; None for none.
        held: What is in memory.
        encode: Makes the message of what was captured.

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
        self._sources: dict[int, SpooledEvent] = {}
        self.trouble = ""
        self._is_closed = False

    def fill(self, *, events: int, data_bytes: int) -> bool:
        """Take the earliest events on disk in flight, and return whether there were any.

        Args:
            events: Most of them.
            data_bytes: Most bytes of them, unless the first alone is larger.
        """
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
            self._held.found_on_disk(
                self._spool.waiting, aside=self._spool.aside, corrupt=corrupt, lost=self._newly_lost()
            )
            entries = [_entry(event) for event in found]
            self._sources = {id(entry): event for entry, event in zip(entries, found, strict=True)}
            self._held.take_from_disk(entries)
            return bool(found)

    def settle(self, entries: Iterable[Entry]) -> None:
        """Forget those of *entries* that came from disk: they are delivered, or given up."""
        if self._spool is None or not self._sources:
            return
        with logging_later(), self._lock:
            events = [self._sources.pop(id(entry)) for entry in entries if id(entry) in self._sources]
            try:
                self._spool.settle(events)
            except SpoolError as error:
                self._tell(error)

    def put_aside(self, entries: Sequence[Entry], error: str) -> None:
        """Have *entries*, which are refused, stand aside on disk; without a spool they are dropped.

        Args:
            entries: Some of those in flight.
            error: Why.
        """
        if self._spool is None:
            self._held.settle(entries, DropReason.REFUSED, error=error)
            return
        with logging_later(), self._lock:
            gone = self._held.put_aside(entries, error=error)
            try:
                self._spool.set_aside(
                    [self._sources.pop(id(entry)) for entry in gone if id(entry) in self._sources]
                )
            except SpoolError as failure:
                self._tell(failure)
            new = [_spooled(entry, entry.encode(self._encode)) for entry in gone if entry.number]
            try:
                if new:
                    self._spool.append(new, newer=self._held.newest, is_aside=True)
                self._held.written(len(new))
                self._held.lost_on_disk(self._newly_lost())
            except SpoolError as failure:
                for _ in new:
                    self._held.drop_for_disk(DropReason.REFUSED, error=error)
                self._tell(failure)
            self._held.stand_aside(self._spool.aside)

    def write_shed(self) -> None:
        """Write what a full buffer has shed."""
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
        """Let go of the directory; what is there stays for the next start."""
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
                self._held.written(len(batch))
                self._held.lost_on_disk(self._newly_lost())
                self._held.stand_aside(self._spool.aside)

    def _encoded(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Message]]:
        for entry in entries:
            try:
                message = entry.encode(self._encode)
            except BaseException as error:  # noqa: BLE001 - an event that cannot be encoded holds up no other
                self._held.drop_for_disk(DropReason.INVALID, error=text_of(error))
            else:
                yield entry, message

    def _newly_lost(self) -> int:
        if self._spool is None:
            return 0
        lost, self._lost = self._spool.lost - self._lost, self._spool.lost
        return lost

    def _tell(self, error: SpoolError) -> None:
        is_told, self.trouble = bool(self.trouble), str(error)
        if not is_told:
            _logger.error("run_log_spool_failed", error=self.trouble)


def keep_alone(
    held: Held, spool: Spool | None, encode: Callable[[Content], Message], *, is_lasting: bool
) -> None:
    """Write all that is held, or say that it is lost, while the interpreter is being torn down.

    No other thread runs any more, and any may have died with a lock: so these are new, and nothing is
    logged. Nothing is published: gRPC would wait for threads, and Python 3.13.0 crashes where a store uses
    `datetime`.

    Args:
        held: What is in memory.
        spool: The directory; None for none.
        encode: Makes the message of what was captured.
        is_lasting: Whether what is delivered outlives the process: else nothing is lost.
    """
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
