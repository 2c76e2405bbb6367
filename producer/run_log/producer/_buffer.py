"""The emitter's memory: bounded by events and by bytes, and the newest state of a run is lost last."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from run_log.core import Message, RunKey


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferLimits:
    """How much an emitter holds for a broker that is slow or away."""

    events: int = 10_000
    """Most events waiting."""
    data_bytes: int = 32 * 2**20
    """Most bytes of message bodies waiting."""


@dataclass(slots=True, eq=False)
class Entry:
    """One event in the buffer."""

    number: int
    """Counts the emitter's events from 1."""
    key: RunKey
    message: Message
    gone: bool = False
    """Whether it has left the buffer, taken or dropped; its place in the queue is then skipped."""


class EventBuffer:
    """A queue that makes room for new events at the cost of those that matter least. Not thread-safe.

    When full, it first drops events that a newer event of the same run supersedes, oldest first, then
    the oldest events.

    Args:
        limits: When it is full.
    """

    def __init__(self, limits: BufferLimits) -> None:
        self._limits = limits
        self._queue: deque[Entry] = deque()
        self._newest: dict[RunKey, Entry] = {}
        self._superseded: deque[Entry] = deque()
        self._events = 0
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many events wait."""
        return self._events

    def add(self, entry: Entry) -> int:
        """Append *entry* and return how many events were dropped to make room."""
        before = self._newest.get(entry.key)
        if before is not None:
            self._superseded.append(before)
        self._newest[entry.key] = entry
        self._queue.append(entry)
        self._events += 1
        self._bytes += len(entry.message.data)
        dropped = 0
        while self._events > self._limits.events or self._bytes > self._limits.data_bytes:
            self._drop(next(self._least_needed()))
            dropped += 1
        return dropped

    def take(self, *, events: int, data_bytes: int) -> list[Entry]:
        """Remove and return the oldest entries: at least one if any wait, and no more than fit.

        Args:
            events: Most entries.
            data_bytes: Most bytes of message bodies, unless the first alone is larger.
        """
        taken: list[Entry] = []
        size = 0
        while self._queue and len(taken) < events:
            entry = self._queue[0]
            if not entry.gone:
                if taken and size + len(entry.message.data) > data_bytes:
                    break
                taken.append(entry)
                size += len(entry.message.data)
                self._forget(entry)
            self._queue.popleft()
        if not self._queue:
            self._superseded.clear()
        return taken

    def oldest(self) -> int | None:
        """Return the number of the oldest event that waits; None if none does."""
        while self._queue and self._queue[0].gone:
            self._queue.popleft()
        return self._queue[0].number if self._queue else None

    def _least_needed(self) -> Iterator[Entry]:
        while self._superseded:
            entry = self._superseded.popleft()
            if not entry.gone:
                yield entry
        for entry in self._queue:
            if not entry.gone:
                yield entry

    def _drop(self, entry: Entry) -> None:
        self._forget(entry)
        # Its place stays in the queue until it comes to the front; its body goes now.
        entry.message = Message(data=b"")

    def _forget(self, entry: Entry) -> None:
        entry.gone = True
        self._events -= 1
        self._bytes -= len(entry.message.data)
        if self._newest.get(entry.key) is entry:
            del self._newest[entry.key]
