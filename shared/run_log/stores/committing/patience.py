"""How an operation on a store is tried again: one layer, jittered, bounded."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from run_log.core import StoreUnavailableError
from run_log.core.backoff import Backoff
from run_log.core.errors import GuessRefusedError
from run_log.stores.telemetry import count_retry

PATIENCE_SECONDS: Final = 15.0
"""How long an operation is tried before it is given up, retries included."""

_BACKOFF: Final = Backoff(0.1, 2.0)

_T = TypeVar("_T")


class Patience:
    """Retries around one operation of ours: jittered, bounded, and cancelled when the caller is.

    Args:
        seconds: How long to try; infinite for as long as it takes.
        uniform: Returns a random number between two.
        sleep: Waits that many seconds.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        seconds: float = PATIENCE_SECONDS,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._uniform = uniform
        self._sleep = sleep
        self._now = now

    async def run(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        """Return what *operation* returns, trying again while the store is unavailable.

        Raises:
            StoreUnavailableError: It was unavailable to the end.
        """
        end = self._now() + self._seconds
        failures = 0
        while True:
            try:
                return await operation()
            except StoreUnavailableError as error:
                if self._now() >= end:
                    raise
                failures += 1
                is_guess = isinstance(error, GuessRefusedError)
            count_retry("guess_refused" if is_guess else "unavailable")
            # A refused guess says that the store is well: what it holds is known by now.
            wait = 0.0 if is_guess and failures == 1 else _BACKOFF.seconds(failures, self._uniform)
            await self._sleep(wait)
