"""How an operation on a store is tried again: one layer, jittered, bounded."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from run_log.core import StoreUnavailableError
from run_log.core.errors import GuessRefusedError
from run_log.stores.telemetry import count_retry

PATIENCE_SECONDS: Final = 15.0
"""How long an operation is tried before it is given up, retries included."""

_FIRST_WAIT_SECONDS: Final = 0.05
_LONGEST_WAIT_SECONDS: Final = 2.0
_MOST_DOUBLINGS: Final = 16
"""After a thousand, an hour without an answer, the wait would be no number any more."""

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
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailableError),
            stop=lambda _state: self._now() >= end,
            wait=self._wait,
            sleep=self._sleep,
            before_sleep=_count,
            reraise=True,
        )
        return await retrying(operation)

    def _wait(self, state: RetryCallState) -> float:
        if isinstance(_error(state), GuessRefusedError) and state.attempt_number == 1:
            return 0.0
        doubled = min(state.attempt_number, _MOST_DOUBLINGS)
        return self._uniform(0, min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**doubled))


def _count(state: RetryCallState) -> None:
    count_retry("guess_refused" if isinstance(_error(state), GuessRefusedError) else "unavailable")


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
