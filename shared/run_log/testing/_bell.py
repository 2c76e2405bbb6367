"""Waking coroutines, whichever event loop and thread they wait in."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Generator


class Listener:
    """One coroutine's ear; only the bell and that coroutine use it."""

    def __init__(self) -> None:
        self.dismissed = False
        """Whether there is nothing to wait for any more."""
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()

    def forget(self) -> None:
        """Wait for the next ring, whatever rang so far."""
        self._rung.clear()

    async def wait(self, seconds: float) -> None:
        """Return as soon as the bell rings, after *seconds* at the latest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()

    def wake(self) -> None:
        """End the wait; from any thread."""
        # A loop that was closed with the coroutine still in it has nobody left to wake.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._rung.set)


class Bell:
    """Wakes everybody who listens. Thread-safe; a ring that nobody listens to is lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()

    @contextlib.contextmanager
    def listening(self) -> Generator[Listener]:
        """Hear every ring within the ``with`` block; to be entered in a running event loop."""
        listener = Listener()
        with self._lock:
            self._listeners.add(listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def ring(self) -> None:
        """Wake everybody who listens; from any thread."""
        with self._lock:
            for listener in self._listeners:
                listener.wake()

    def dismiss(self) -> None:
        """Wake everybody who listens now, for good."""
        with self._lock:
            for listener in self._listeners:
                listener.dismissed = True
                listener.wake()
