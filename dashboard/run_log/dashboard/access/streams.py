"""Streams that are open, of which a process holds only so many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

MAX_STREAMS: Final = 200
"""How many streams are open at most: each holds a connection and a place in memory."""

LONGEST: Final = timedelta(minutes=11)
"""How long a stream is open at most. One ends by itself before, unless its client does not read: what is sent
then waits for the client."""

RETRY_AFTER_SECONDS: Final = 10
"""When to ask again for one that was refused."""


class OpenStreams:
    """The streams that are open, which `close` ends."""

    def __init__(self, most: int = MAX_STREAMS, longest: timedelta = LONGEST) -> None:
        self._most = most
        self._longest = longest.total_seconds()
        self._open: set[asyncio.Timeout] = set()
        self._is_closed = False

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def close(self) -> None:
        """End every stream, and open no more: a server that stops would wait for them."""
        self._is_closed = True
        for end in self._open:
            end.reschedule(0)

    @asynccontextmanager
    async def ending(self) -> AsyncGenerator[asyncio.Timeout]:
        """Yield what ends the block early, and without an error. Once admitted, time or `close` does that."""
        end = asyncio.timeout(None)
        try:
            async with end:
                yield end
        except TimeoutError:
            if not end.expired():
                raise
        finally:
            self._open.discard(end)

    def admit(self, end: asyncio.Timeout) -> bool:
        """Count what *end* ends as a stream; False if there are too many, or the server stops."""
        if self._is_closed or len(self._open) >= self._most:
            return False
        self._open.add(end)
        end.reschedule(asyncio.get_running_loop().time() + self._longest)
        return True
