"""What an emitter holds, from `emit` until it is delivered, dropped or on disk, and the counters."""

from __future__ import annotations

import itertools
import sys
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import CodeType
from typing import Final

from run_log.core import Version
from run_log.core.forks import renewed
from run_log.core.models import RunKey

from ._capture import Entry, Rejection
from ._metrics import DropReason, EmitterStats


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferLimits:
    """How much an emitter holds while the broker is slow or away."""

    events: int = 10_000
    """Most events."""
    data_bytes: int = 32 * 2**20
    """About how many bytes: payloads and what an event takes besides."""


MAX_INTAKE: Final = 500
"""Events that may wait for the buffer. Beyond that, `emit` moves them there itself."""

SMALL_ENTRY_BYTES: Final = 8_192
"""Larger events go into the buffer at once, so that those outside of its limits stay small."""

MAX_SHED: Final = BufferLimits()
"""How much of what a full buffer sheds may wait for the spool directory."""


class EventBuffer:
    """A bounded queue that drops first what matters least. Not thread-safe.

    A full buffer first drops events that a newer event of the same run supersedes, oldest first, and then
    the oldest events. So the newest state of a run is lost last. The newer event may have been taken
    meanwhile, as long as others of its run wait.
    """

    def __init__(self, limits: BufferLimits) -> None:
        self._limits = limits
        # By number. A deque that only marks what has left would grow through an outage.
        self._waiting: OrderedDict[int, Entry] = OrderedDict()
        self._superseded: OrderedDict[int, Entry] = OrderedDict()
        self._versions: dict[RunKey, tuple[int, int, str]] = {}  # the newest of each run that waits
        # The numbers of what waits in that version. To the garbage collector a tuple of them is nothing.
        self._newest: dict[RunKey, tuple[int, ...]] = {}
        self._behind: Counter[RunKey] = Counter()  # how many are superseded, if any
        self._bytes = 0
        self._is_sound = True

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, number: int) -> bool:
        return number in self._waiting

    def add(self, entry: Entry) -> list[Entry]:
        """Append *entry* and return what was dropped to make room."""
        self._begin()
        self._waiting[entry.number] = entry
        return self._added([entry])

    def give_back(self, entries: Sequence[Entry]) -> list[Entry]:
        """Put *entries* that were taken in front again, and return what was dropped to make room."""
        self._begin()
        for entry in reversed(entries):
            self._waiting[entry.number] = entry
            self._waiting.move_to_end(entry.number, last=False)
        return self._added(entries)

    def take(self, *, events: int, data_bytes: int, is_strict: bool = False) -> list[Entry]:
        """Remove and return the oldest entries that fit; unless *is_strict* at least one, however large."""
        self._begin()
        taken: list[Entry] = []
        while self._waiting and len(taken) < events:
            entry = _first(self._waiting)
            data_bytes -= entry.size
            if data_bytes < 0 and (taken or is_strict):
                break
            self._remove(entry)
            taken.append(entry)
        self._is_sound = True
        return taken

    def take_all(self) -> list[Entry]:
        return self.take(events=len(self), data_bytes=self._bytes)

    def newest(self) -> dict[RunKey, Version]:
        """Return the newest version of each run of which any event waits."""
        return {key: Version(*version) for key, version in self._versions.items()}

    def oldest(self) -> int | None:
        """Return the number of the oldest event that waits; None if none does."""
        return next(iter(self._waiting), None)

    @property
    def is_half_full(self) -> bool:
        limits = self._limits
        return 2 * len(self._waiting) >= limits.events or 2 * self._bytes >= limits.data_bytes

    def _begin(self) -> None:
        """Note that a change begins, and repair the last one if a signal's handler cut it short."""
        if not self._is_sound:
            self._bytes = 0
            for ranks in (self._superseded, self._versions, self._newest, self._behind):
                ranks.clear()
            for number, entry in self._waiting.items():
                entry.number = number
                self._rank(entry)
        self._is_sound = False

    def _added(self, entries: Iterable[Entry]) -> list[Entry]:
        for entry in entries:
            self._rank(entry)
        dropped: list[Entry] = []
        while self._waiting and self._is_over():
            entry = _first(self._superseded or self._waiting)
            self._remove(entry)
            dropped.append(entry)
        self._is_sound = True
        return dropped

    def _is_over(self) -> bool:
        return len(self._waiting) > self._limits.events or self._bytes > self._limits.data_bytes

    def _rank(self, entry: Entry) -> None:
        self._bytes += entry.size
        newest = self._versions.get(entry.key)
        if newest is None or newest < entry.version:
            for number in self._newest.pop(entry.key, ()):
                self._supersede(self._waiting[number])
            self._versions[entry.key] = newest = entry.version
        if newest == entry.version:
            # Two in one version are both the newest: only their contents, which nobody reads here, would
            # tell which of them comes first.
            self._newest[entry.key] = (*self._newest.get(entry.key, ()), entry.number)
        else:
            self._supersede(entry)

    def _supersede(self, entry: Entry) -> None:
        self._superseded[entry.number] = entry
        self._behind[entry.key] += 1

    def _remove(self, entry: Entry) -> None:
        del self._waiting[entry.number]
        self._bytes -= entry.size
        if self._superseded.pop(entry.number, None):
            self._behind[entry.key] -= 1
            if not self._behind[entry.key]:
                del self._behind[entry.key]
        else:
            newest = self._newest.pop(entry.key)
            if len(newest) > 1:
                at = newest.index(entry.number)
                self._newest[entry.key] = newest[:at] + newest[at + 1 :]
        # As long as others of its run wait, its version supersedes them.
        if entry.key not in self._newest and entry.key not in self._behind:
            del self._versions[entry.key]


def _first(entries: OrderedDict[int, Entry]) -> Entry:
    return next(iter(entries.values()))


class Held:
    """The events of one emitter, each in one place, and the counters. Thread-safe. No method does any I/O.

    `emit` appends to `intake`. That is atomic, so `emit` needs no lock. From there an event is absorbed into
    the buffer, taken in flight, and settled.

    Its lock is the innermost: whoever holds it calls nothing that takes another lock of ours. `Disk` takes
    its own lock first, then this one.

    With *keeps_shed*, what a full buffer sheds is kept for a spool, rather than dropped. Once it is *closed*,
    what is absorbed is dropped.

    Attributes:
        last_number: The number of the last event that was absorbed.
        retries: Publish calls that failed.
        total_written: Events written to the spool directory since the beginning.
        details: What else to log about the last drop of each reason.
    """

    def __init__(self, limits: BufferLimits, *, keeps_shed: bool, closed: bool = False) -> None:
        self.intake: deque[Entry | Rejection] = deque()
        self.closed = closed
        # Reentrant: a signal's handler or a finalizer may emit in the middle of anything.
        self._lock = renewed(self, "_lock", threading.RLock)
        self._is_absorbing = False
        self._numbers = itertools.count(1)
        self.last_number = self.retries = self.total_written = 0
        self._buffer = EventBuffer(limits)
        self._keeps_shed = keeps_shed
        self._shed = EventBuffer(MAX_SHED)
        self._in_flight: deque[Entry] = deque()
        self._moving = self._on_disk = self._aside = 0
        self._waiters: dict[object, tuple[int, Callable[[], None]]] = {}
        self._delivered = 0
        self._dropped: Counter[DropReason] = Counter()
        self.details: dict[DropReason, Mapping[str, str]] = {}

    def renew_lock(self) -> None:
        """Make a new lock. The end of the interpreter may have taken the thread that holds the old one."""
        self._lock = renewed(self, "_lock", threading.RLock)
        self._is_absorbing = False

    def holds(self) -> bool:
        """Return whether anything is in memory only, or may be because another thread holds the lock."""
        # It does not wait for the lock: a signal's handler asks, and may have interrupted its holder.
        if not self._lock.acquire(blocking=False):
            return True
        try:
            return bool(self.intake) or self.stats.buffered > 0
        finally:
            self._lock.release()

    def absorb(self) -> None:
        with self._lock:
            # The lock is reentrant, so this may be a signal's handler in the middle of an absorb, which goes
            # on afterwards. The flag alone does not show it: an absorb that a handler cut short leaves it.
            if self._is_absorbing and _is_running(Held.absorb.__code__):
                return
            self._is_absorbing = True
            for _ in range(len(self.intake)):
                # In this order: a signal's handler may raise in between, and then the item comes again.
                self._take_in(self.intake[0])
                self.intake.popleft()
            self._is_absorbing = False
            self._notify()

    def _take_in(self, item: Entry | Rejection) -> None:
        if isinstance(item, Rejection):
            self._drop(DropReason.INVALID, 1, type=item.type_name, error=item.error)
        elif self.closed:
            self._drop(DropReason.CLOSED, 1)
        elif not item.number or item.number not in self._buffer:
            item.number = self.last_number = next(self._numbers)
            self._shed_from_buffer(self._buffer.add(item))

    def _shed_from_buffer(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            lost = self._shed.add(entry) if self._keeps_shed else [entry]
            self._drop(DropReason.BUFFER_FULL, len(lost))

    def take(self, *, events: int, data_bytes: int) -> None:
        with self._lock:
            self._in_flight.extend(self._buffer.take(events=events, data_bytes=data_bytes))

    def take_from_disk(self, entries: Iterable[Entry]) -> None:
        """Take *entries*, which stay on disk until they are settled, in flight."""
        with self._lock:
            self._in_flight.extend(entries)

    def in_flight(self, events: int | None = None) -> list[Entry]:
        """Return all entries in flight, or the first *events* of them."""
        with self._lock:
            return list(islice(self._in_flight, events))

    def settle(
        self, entries: Sequence[Entry], reason: DropReason | None = None, **details: str
    ) -> list[Entry]:
        """Let go of those of *entries* that are still in flight, and return them."""
        # They are delivered, or dropped for *reason*. A thread that closes the emitter may have taken some.
        with self._lock:
            gone = self._leave(entries)
            self._on_disk -= sum(not entry.number for entry in gone)
            if reason is None:
                self._delivered += len(gone)
            else:
                self._drop(reason, len(gone), **details)
            self._notify()
            return gone

    def _leave(self, entries: Iterable[Entry]) -> list[Entry]:
        # By identity, and in one pass, because some may be gone, in any order.
        leaving = {id(entry) for entry in entries}
        gone = [entry for entry in self._in_flight if id(entry) in leaving]
        self._in_flight = deque(entry for entry in self._in_flight if id(entry) not in leaving)
        return gone

    def put_aside(self, entries: Sequence[Entry], **details: str) -> list[Entry]:
        """Let go of those of *entries*, all refused, that are still in flight, and return them."""
        # Those that are not on disk yet count as on their way there.
        with self._lock:
            gone = self._leave(entries)
            self._moving += sum(entry.number > 0 for entry in gone)
            self.details[DropReason.REFUSED] = details
            return gone

    def give_back(self) -> None:
        """Put what is in flight back to where it came from."""
        with self._lock:
            entries = [entry for entry in self._in_flight if entry.number]
            self._in_flight.clear()
            self._shed_from_buffer(self._buffer.give_back(entries))
            self._notify()

    def take_for_disk(self, data_bytes: int) -> list[Entry]:
        """Take what the full buffer shed, and *data_bytes* of the oldest of the rest, for the disk."""
        with self._lock:
            entries = self._shed.take_all()
            left = data_bytes
            while self._in_flight and self._in_flight[0].number and self._in_flight[0].size <= left:
                left -= self._in_flight[0].size
                entries.append(self._in_flight.popleft())
            entries += self._buffer.take(events=len(self._buffer), data_bytes=left, is_strict=True)
            self._moving += len(entries)
            return entries

    def take_all_for_disk(self) -> list[Entry]:
        with self._lock:
            entries = self._shed.take_all() + [entry for entry in self._in_flight if entry.number]
            self._in_flight.clear()
            entries += self._buffer.take_all()
            self._moving += len(entries)
            return entries

    def written(self, events: int, *, lost: int, aside: int) -> None:
        """Count *events* that were taken for the disk as written; *lost* ones on disk made room for them.

        *aside* is how many on disk stand aside. `wait` does not wait for those.
        """
        with self._lock:
            self._moving -= events
            self._on_disk += events - lost
            self._aside = aside
            self.total_written += events
            self._drop(DropReason.SPOOL_FULL, lost)
            self._notify()

    def not_written(self, entries: Sequence[Entry]) -> None:
        with self._lock:
            self._moving -= len(entries)
            self._shed_from_buffer(self._buffer.give_back(entries))
            self._notify()

    def drop_for_disk(self, reason: DropReason, **details: str) -> None:
        with self._lock:
            self._moving -= 1
            self._drop(reason, 1, **details)
            self._notify()

    def newest(self) -> dict[RunKey, Version]:
        with self._lock:
            versions = self._buffer.newest()
            for entry in self._in_flight:
                version = Version(*entry.version)
                versions[entry.key] = max(version, versions.get(entry.key, version))
            return versions

    def found_on_disk(self, waiting: int, *, aside: int, corrupt: int, lost: int) -> None:
        """Correct the counters by what the spool directory really holds, while nothing is in flight from it.

        Args:
            waiting: Events there that are not delivered. An earlier process left those that were unknown;
                if some are missing, somebody has deleted them.
            aside: Further events there, which were refused and stand aside.
            corrupt: Unreadable records found there since the last call.
            lost: Events there that had to make room since the last call.
        """
        with self._lock:
            found = waiting + aside + corrupt + lost - self._on_disk
            self._on_disk, self._aside = waiting + aside, aside
            self._drop(DropReason.SPOOL_CORRUPT, corrupt + max(0, -found))
            self._drop(DropReason.SPOOL_FULL, lost)
            self._notify()

    def close(self) -> None:
        with self._lock:
            self.absorb()
            self.closed = True

    def wait(self, notify: Callable[[], None]) -> object:
        """Have *notify* called once everything emitted so far is delivered or dropped, or by `give_up`.

        Returns:
            What `forget` takes when nobody waits any more.
        """
        waiter = object()
        with self._lock:
            self.absorb()
            self._waiters[waiter] = (self.last_number, notify)
            self._notify()
        return waiter

    def forget(self, waiter: object) -> None:
        with self._lock:
            self._waiters.pop(waiter, None)

    @property
    def is_waited_for(self) -> bool:
        return bool(self._waiters)

    def give_up(self) -> None:
        """Notify all who wait, because nothing more will be delivered."""
        with self._lock:
            for _, notify in list(self._waiters.values()):
                notify()
            self._waiters.clear()

    @property
    def has_waiting(self) -> bool:
        return len(self._buffer) > 0

    @property
    def is_half_full(self) -> bool:
        return self._buffer.is_half_full

    @property
    def has_shed(self) -> bool:
        return len(self._shed) > 0

    @property
    def stats(self) -> EmitterStats:
        with self._lock:
            self.absorb()
            dropped = self._dropped.total()
            in_flight = sum(entry.number > 0 for entry in self._in_flight)
            buffered = len(self._buffer) + len(self._shed) + in_flight + self._moving
            pending = buffered + self._on_disk
            return EmitterStats(
                emitted=self._delivered + pending + dropped,
                delivered=self._delivered,
                pending=pending,
                dropped=dropped,
                buffered=buffered,
                spooled=self._on_disk,
                aside=self._aside,
                retries=self.retries,
                dropped_by_reason=dict(self._dropped),
            )

    def _drop(self, reason: DropReason, events: int, **details: str) -> None:
        if events:
            self._dropped[reason] += events
        if details:
            self.details[reason] = details

    def _notify(self) -> None:
        if not self._waiters:
            return
        numbers = [self._in_flight[0].number] if self._in_flight else []
        oldest = self._buffer.oldest()
        if oldest is not None:
            numbers.append(oldest)
        # What is on disk, or on its way there, counts as older than everything: all who wait, wait for it.
        if self._on_disk > self._aside or self._moving or self.has_shed:
            numbers.append(0)
        for waiter, (target, notify) in list(self._waiters.items()):
            if not numbers or min(numbers) > target:
                del self._waiters[waiter]
                notify()


def _is_running(code: CodeType) -> bool:
    """Return whether *code* is under way in this thread, besides the caller."""
    caller = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - there is no public way
    frame = caller.f_back
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None
