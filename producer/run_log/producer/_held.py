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

    Args:
        limits: When it is full.
    """

    def __init__(self, limits: BufferLimits) -> None:
        self._limits = limits
        # By number. A deque that only marks what has left would grow through an outage.
        self._waiting: OrderedDict[int, Entry] = OrderedDict()
        self._superseded: OrderedDict[int, Entry] = OrderedDict()
        # Of each run with an event here. It has no content if it was taken before the others.
        self._newest: dict[RunKey, Entry] = {}
        self._twins: dict[RunKey, dict[int, Entry]] = {}  # others in the newest's version
        self._behind: Counter[RunKey] = Counter()  # how many besides the newest, if any
        self._bytes = 0
        self._is_sound = True

    def __len__(self) -> int:
        """Return how many events wait."""
        return len(self._waiting)

    def __contains__(self, number: int) -> bool:
        """Return whether the event of that number waits."""
        return number in self._waiting

    def add(self, entry: Entry) -> list[Entry]:
        """Append *entry* and return what was dropped to make room."""
        self._begin()
        self._waiting[entry.number] = entry
        self._bytes += entry.size
        self._rank(entry)
        dropped = self._make_room()
        self._is_sound = True
        return dropped

    def give_back(self, entries: Sequence[Entry]) -> list[Entry]:
        """Put *entries* that were taken in front again, and return what was dropped to make room."""
        self._begin()
        for entry in reversed(entries):
            self._waiting[entry.number] = entry
            self._waiting.move_to_end(entry.number, last=False)
            self._bytes += entry.size
            self._rank(entry)
        dropped = self._make_room()
        self._is_sound = True
        return dropped

    def take(self, *, events: int, data_bytes: int) -> list[Entry]:
        """Remove and return the oldest entries: at least one if any wait, and no more than fit.

        Args:
            events: Most entries.
            data_bytes: Most bytes, unless the first alone is larger.
        """
        self._begin()
        taken: list[Entry] = []
        left = data_bytes
        while self._waiting and len(taken) < events:
            entry = _first(self._waiting)
            left -= entry.size
            if taken and left < 0:
                break
            taken.append(self._remove(entry))
        self._is_sound = True
        return taken

    def take_all(self) -> list[Entry]:
        """Remove and return all entries."""
        return self.take(events=len(self), data_bytes=self._bytes)

    def newest(self) -> dict[RunKey, Version]:
        """Return the newest version of each run of which any event waits."""
        return {key: Version(*entry.version) for key, entry in self._newest.items()}

    def oldest(self) -> int | None:
        """Return the number of the oldest event that waits; None if none does."""
        return next(iter(self._waiting), None)

    @property
    def oldest_bytes(self) -> int:
        """Bytes of the oldest event that waits; there has to be one."""
        return _first(self._waiting).size

    @property
    def data_bytes(self) -> int:
        """Bytes waiting."""
        return self._bytes

    @property
    def is_half_full(self) -> bool:
        """Whether half of the room is taken."""
        limits = self._limits
        return 2 * len(self._waiting) >= limits.events or 2 * self._bytes >= limits.data_bytes

    def _begin(self) -> None:
        """Note that a change begins, and repair the last one if a signal's handler cut it short."""
        if not self._is_sound:
            self._bytes = 0
            self._newest.clear()
            self._superseded.clear()
            self._twins.clear()
            self._behind.clear()
            for number, entry in self._waiting.items():
                entry.number = number
                self._bytes += entry.size
                self._rank(entry)
        self._is_sound = False

    def _rank(self, entry: Entry) -> None:
        newest = self._newest.get(entry.key)
        if newest is not None and newest.version == entry.version and newest.number != entry.number:
            # Which of two in one version comes first depends on their contents, which nobody reads here.
            self._twins.setdefault(entry.key, {})[entry.number] = entry
            self._behind[entry.key] += 1
            return
        older = entry
        # The same number: the newest itself is given back.
        if newest is None or newest.version < entry.version or newest.number == entry.number:
            if newest is not None and newest.version < entry.version:
                self._superseded.update(self._twins.pop(entry.key, {}))
            self._newest[entry.key] = entry
            older = newest or entry
        if older.number != self._newest[entry.key].number and older.number in self._waiting:
            self._superseded[older.number] = older
            self._behind[entry.key] += 1

    def _make_room(self) -> list[Entry]:
        dropped: list[Entry] = []
        while self._waiting and self._is_over():
            dropped.append(self._remove(_first(self._superseded or self._waiting)))
        return dropped

    def _is_over(self) -> bool:
        return len(self._waiting) > self._limits.events or self._bytes > self._limits.data_bytes

    def _remove(self, entry: Entry) -> Entry:
        del self._waiting[entry.number]
        self._bytes -= entry.size
        if self._superseded.pop(entry.number, None):
            self._behind[entry.key] -= 1
        elif entry.number != self._newest[entry.key].number:
            twins = self._twins[entry.key]
            del twins[entry.number]
            if not twins:
                del self._twins[entry.key]
            self._behind[entry.key] -= 1
        elif entry.key in self._behind:
            # Others of its run wait still, and are ranked by its version. Its content would cost memory.
            taken = self._newest[entry.key] = Entry(entry.key, entry.version, 0, None)
            taken.number = entry.number
        if not self._behind.get(entry.key):
            self._behind.pop(entry.key, None)
            if self._newest[entry.key].number not in self._waiting:
                del self._newest[entry.key]
        return entry


def _first(entries: OrderedDict[int, Entry]) -> Entry:
    return next(iter(entries.values()))


class Held:
    """The events of one emitter, each in one place, and the counters. Thread-safe. No method does any I/O.

    `emit` appends to `intake`. That is atomic, so `emit` needs no lock. From there an event is absorbed into
    the buffer, taken in flight, and settled.

    Its lock is the innermost: whoever holds it calls nothing that takes another lock of ours. `Disk` takes
    its own lock first, then this one.

    Args:
        limits: How much the buffer holds.
        keeps_shed: Whether what a full buffer sheds is kept for a spool, rather than dropped.
        closed: Whether what is absorbed is dropped.
    """

    def __init__(self, limits: BufferLimits, *, keeps_shed: bool, closed: bool = False) -> None:
        self.intake: deque[Entry | Rejection] = deque()
        self.closed = closed
        # Reentrant: a signal's handler or a finalizer may emit in the middle of anything.
        self._lock = renewed(self, "_lock", threading.RLock)
        self._is_absorbing = False
        self._numbers = itertools.count(1)
        self._last_number = 0
        self._buffer = EventBuffer(limits)
        self._keeps_shed = keeps_shed
        self._shed = EventBuffer(MAX_SHED)
        self._in_flight: deque[Entry] = deque()
        self._moving = self._on_disk = self._aside = 0
        self._waiters: dict[object, tuple[int, Callable[[], None]]] = {}
        self._delivered = self._retries = self._written = 0
        self._dropped: Counter[DropReason] = Counter()
        self._details: dict[DropReason, Mapping[str, str]] = {}

    def renew_lock(self) -> None:
        """Make a new lock. The end of the interpreter may have taken the thread that holds the old one."""
        self._lock = renewed(self, "_lock", threading.RLock)
        self._is_absorbing = False

    def holds(self) -> bool:
        """Return whether anything is in memory only, or may be because another thread holds the lock.

        It does not wait for the lock: a signal's handler asks, and may have interrupted its holder.
        """
        if not self._lock.acquire(blocking=False):
            return True
        try:
            return bool(self.intake) or self.stats.buffered > 0
        finally:
            self._lock.release()

    def absorb(self) -> None:
        """Move what is in the intake now into the buffer."""
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
            item.number = self._last_number = next(self._numbers)
            self._shed_from_buffer(self._buffer.add(item))

    def _shed_from_buffer(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            lost = self._shed.add(entry) if self._keeps_shed else [entry]
            self._drop(DropReason.BUFFER_FULL, len(lost))

    def take(self, *, events: int, data_bytes: int) -> None:
        """Take the oldest entries of the buffer in flight."""
        with self._lock:
            self._in_flight.extend(self._buffer.take(events=events, data_bytes=data_bytes))

    def take_from_disk(self, entries: Iterable[Entry]) -> None:
        """Take *entries*, which stay on disk until they are settled, in flight."""
        with self._lock:
            self._in_flight.extend(entries)

    def in_flight(self, events: int | None = None) -> list[Entry]:
        """Return the first entries in flight.

        Args:
            events: Most of them; None for all.
        """
        with self._lock:
            return list(islice(self._in_flight, events))

    def settle(
        self, entries: Sequence[Entry], reason: DropReason | None = None, **details: str
    ) -> list[Entry]:
        """Let go of those of *entries* that are still in flight, and return them.

        Args:
            entries: Some that were in flight. A thread that closes the emitter may have taken them.
            reason: Why they were dropped; None if they were delivered.
            details: What else to log.
        """
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
        # By identity, and in one pass: a thread that closes the emitter may have taken some, in any order.
        leaving = {id(entry) for entry in entries}
        gone = [entry for entry in self._in_flight if id(entry) in leaving]
        self._in_flight = deque(entry for entry in self._in_flight if id(entry) not in leaving)
        return gone

    def put_aside(self, entries: Sequence[Entry], **details: str) -> list[Entry]:
        """Let go of those of *entries* that are still in flight, because they are refused, and return them.

        Those that are not on disk yet count as on their way there.

        Args:
            entries: Some that were in flight.
            details: What else to log.
        """
        with self._lock:
            gone = self._leave(entries)
            self._moving += sum(entry.number > 0 for entry in gone)
            self._details[DropReason.REFUSED] = details
            return gone

    def stand_aside(self, events: int) -> None:
        """Note how many events on disk stand aside. `wait` does not wait for them."""
        with self._lock:
            self._aside = events
            self._notify()

    def give_back(self) -> None:
        """Put what is in flight back to where it came from."""
        with self._lock:
            entries = [entry for entry in self._in_flight if entry.number]
            self._in_flight.clear()
            self._shed_from_buffer(self._buffer.give_back(entries))
            self._notify()

    def take_for_disk(self, data_bytes: int) -> list[Entry]:
        """Take what the full buffer shed, and the oldest of the rest, to be written to disk.

        Args:
            data_bytes: Most bytes of the rest.
        """
        with self._lock:
            entries = self._shed.take_all()
            left = data_bytes
            while self._in_flight and self._in_flight[0].number and self._in_flight[0].size <= left:
                left -= self._in_flight[0].size
                entries.append(self._in_flight.popleft())
            while len(self._buffer) and self._buffer.oldest_bytes <= left:
                left -= self._buffer.oldest_bytes
                entries += self._buffer.take(events=1, data_bytes=0)
            self._moving += len(entries)
            return entries

    def take_all_for_disk(self) -> list[Entry]:
        """Take all that is not on disk already, to be written there."""
        with self._lock:
            entries = self._shed.take_all() + [entry for entry in self._in_flight if entry.number]
            self._in_flight.clear()
            entries += self._buffer.take_all()
            self._moving += len(entries)
            return entries

    def written(self, events: int) -> None:
        """Count *events* that were taken for the disk as written."""
        with self._lock:
            self._moving -= events
            self._on_disk += events
            self._written += events

    def not_written(self, entries: Sequence[Entry]) -> None:
        """Take *entries* back into memory, because they could not be written."""
        with self._lock:
            self._moving -= len(entries)
            self._shed_from_buffer(self._buffer.give_back(entries))
            self._notify()

    def drop_for_disk(self, reason: DropReason, **details: str) -> None:
        """Count an entry that was taken for the disk as dropped."""
        with self._lock:
            self._moving -= 1
            self._drop(reason, 1, **details)
            self._notify()

    def newest(self) -> dict[RunKey, Version]:
        """Return the newest version of each run that is held in memory."""
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

    def lost_on_disk(self, events: int) -> None:
        """Count *events* on disk as dropped for want of room."""
        with self._lock:
            self._on_disk -= events
            self._drop(DropReason.SPOOL_FULL, events)
            self._notify()

    def count_retry(self) -> None:
        """Count a publish call that failed."""
        with self._lock:
            self._retries += 1

    def close(self) -> None:
        """Absorb what was emitted so far, and drop what comes later."""
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
            self._waiters[waiter] = (self._last_number, notify)
            self._notify()
        return waiter

    def forget(self, waiter: object) -> None:
        """Undo `wait`."""
        with self._lock:
            self._waiters.pop(waiter, None)

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for delivery."""
        return bool(self._waiters)

    def give_up(self) -> None:
        """Notify all who wait, because nothing more will be delivered."""
        with self._lock:
            for _, notify in list(self._waiters.values()):
                notify()
            self._waiters.clear()

    @property
    def last_number(self) -> int:
        """The number of the last event that was absorbed."""
        return self._last_number

    @property
    def has_waiting(self) -> bool:
        """Whether the buffer holds anything."""
        return len(self._buffer) > 0

    @property
    def is_half_full(self) -> bool:
        """Whether half of the buffer's room is taken."""
        return self._buffer.is_half_full

    @property
    def has_shed(self) -> bool:
        """Whether anything waits for the spool directory."""
        return len(self._shed) > 0

    @property
    def stats(self) -> EmitterStats:
        """The counters now."""
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
                retries=self._retries,
                dropped_by_reason=dict(self._dropped),
            )

    @property
    def written_so_far(self) -> int:
        """Events written to the spool directory since the beginning."""
        return self._written

    @property
    def drop_details(self) -> Mapping[DropReason, Mapping[str, str]]:
        """What else to log about the last drop of each reason."""
        return self._details

    def _drop(self, reason: DropReason, events: int, **details: str) -> None:
        if events:
            self._dropped[reason] += events
        if details:
            self._details[reason] = details

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
