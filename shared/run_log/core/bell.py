"""Waking coroutines from any thread, whichever event loop they wait in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from .forks import renewed


class Bell:
    """Wakes all coroutines that wait. Thread-safe. A ring that nobody waits for is lost."""

    def __init__(self) -> None:
        self._lock = renewed(self, "_lock", threading.Lock)
        # Renewed as well: a forked child must not wake event loops of its parent.
        self._waiting = renewed(self, "_waiting", set[asyncio.Future[None]])

    def ring(self) -> None:
        """Wake all that wait now."""
        if not self._waiting:
            return
        with self._lock:
            waiting = self._waiting.copy()
            self._waiting.clear()
        for future in waiting:
            # A closed loop raises: nobody is left in it to wake.
            with suppress(RuntimeError):
                future.get_loop().call_soon_threadsafe(partial(_wake, future))

    async def wait(self, unless: Callable[[], bool]) -> None:
        """Wait for the next ring, or not at all if *unless* returns true."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.add(future)
        try:
            # Only now, since a ring would be heard: none can fall between this look and the wait.
            if not unless():
                await future
        finally:
            with self._lock:
                self._waiting.discard(future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
