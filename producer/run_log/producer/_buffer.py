"""The emitter's memory: bounded by events and by bytes, and the newest state of a run is lost last."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from run_log.core import Version
from run_log.core.models import RunKey

from ._capture import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferLimits:
    """How much an emitter holds for a broker that is slow or away."""

    events: int = 10_000
    """Most events waiting."""
    data_bytes: int = 32 * 2**20
    """Most bytes waiting, about: payloads and what an event takes besides."""


class EventBuffer:
    """A queue that makes room for new events at the cost of those that matter least. Not thread-safe.

    When full, it first drops events that a newer event of the same run supersedes, oldest first, then
    the oldest events. The newer event may have been taken since, as long as others of its run wait.

    Args:
        limits: When it is full.
    """

    def __init__(self, limits: BufferLimits) -> None:
        self._limits = limits
        # By number. What leaves is gone at once, wherever it stood: an outage must not cost memory.
        self._waiting: OrderedDict[int, Entry] = OrderedDict()
        self._superseded: OrderedDict[int, Entry] = OrderedDict()
        # Of each run of which any event waits. Without its content where it was taken before the others.
        self._newest: dict[RunKey, Entry] = {}
        self._twins: dict[RunKey, dict[int, Entry]] = {}  # what waits in the newest's version besides it
        self._behind: Counter[RunKey] = Counter()  # how many wait besides the newest, of runs that have some
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
        """Note that a change is under way; mend what one that a signal's handler cut short has left."""
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
            # Which of two in one version goes before the other, only their contents tell.
            self._twins.setdefault(entry.key, {})[entry.number] = entry
            self._behind[entry.key] += 1
            return
        older = entry
        # By number: the newest may be given back.
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
            taken = self._newest[entry.key] = Entry(entry.key, entry.version, 0, None)
            taken.number = entry.number
        if not self._behind.get(entry.key):
            self._behind.pop(entry.key, None)
            if self._newest[entry.key].number not in self._waiting:
                del self._newest[entry.key]
        return entry


def _first(entries: OrderedDict[int, Entry]) -> Entry:
    return next(iter(entries.values()))
