"""Memory of what was used most recently, bounded by number and by bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from sys import getsizeof
from typing import Final, Generic, TypeVar

from run_log.core.forks import renewed
from run_log.core.law import RunHead

_K = TypeVar("_K")
_V = TypeVar("_V")

_ENTRY_BYTES: Final = 300
_HEAD_BYTES: Final = 450
_TRANSITION_BYTES: Final = 256


class Recent(Generic[_K, _V]):
    """A mapping that forgets what was used least recently. Threads may share it.

    Args:
        most: How many entries are kept.
        most_bytes: How many bytes of them; the newest one is kept whatever its size.
        size: Returns how many bytes an entry takes.
    """

    def __init__(self, most: int, most_bytes: int, size: Callable[[_K, _V], int]) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._size = size
        # Reentrant, since a signal handler may record a run in the middle.
        self._lock = renewed(self, "_lock", threading.RLock)
        self._entries: OrderedDict[_K, tuple[_V, int]] = OrderedDict()
        self.data_bytes = 0
        """Bytes of all entries."""

    def __len__(self) -> int:
        """Return how many entries there are."""
        return len(self._entries)

    def get(self, key: _K) -> _V | None:
        """Return what is kept for *key*, which it is used by; None where nothing is."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: _K, value: _V) -> None:
        """Keep *value* for *key* from now on."""
        size = self._size(key, value)
        with self._lock:
            self.pop(key)
            self._entries[key] = (value, size)
            self.data_bytes += size
            while len(self._entries) > max(1, self._most) or (
                self.data_bytes > self._most_bytes and len(self._entries) > 1
            ):
                self.pop(next(iter(self._entries)))

    def pop(self, key: _K) -> None:
        """Forget what is kept for *key*, if anything is."""
        with self._lock:
            _, size = self._entries.pop(key, (None, 0))
            self.data_bytes -= size


def names_bytes(names: Iterable[str]) -> int:
    """Return how many bytes an entry takes by these *names*, about: measured, CPython 3.11."""
    return _ENTRY_BYTES + sum(map(getsizeof, names))


def head_bytes(head: RunHead) -> int:
    """Return how many bytes *head* takes, about: measured, CPython 3.11."""
    size = _HEAD_BYTES + _TRANSITION_BYTES * len(head.history)
    for transition in head.history:
        size += getsizeof(transition.version.event_id)
        if transition.answered_by is not None:
            size += getsizeof(transition.answered_by)
    return size
