"""An event loop in virtual time: it never waits, and a schedule replays exactly."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any


class DeadlockError(Exception):
    """Nothing is left to run, and no timer is set: the simulated world has come to a stop."""


class _Clock(selectors.BaseSelector):
    """Stands in for the operating system: instead of waiting for something to happen, time jumps."""

    def __init__(self) -> None:
        self._files = selectors.DefaultSelector()
        self.now = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._files.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._files.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise DeadlockError("nothing is left to run, and no timer is set")
        self.now += max(0.0, timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._files.get_map()

    def close(self) -> None:
        self._files.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, callbacks in their usual order, on a clock that jumps to the next timer."""

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._clock.now
