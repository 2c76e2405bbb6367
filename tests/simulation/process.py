"""A simulated process: it may crash, and it may stand still while the world goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .record import ViolationError

_T = TypeVar("_T")

ANSWER_SECONDS = 10.0
"""How long a call waits for its answer."""


class Process:
    """Where a projector runs. Every answer and every timer reaches it through here."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name = name
        self.stop = asyncio.Event()
        self._chance = chance
        self._is_running = asyncio.Event()
        self._is_running.set()
        self._is_alive = True

    def pause(self) -> None:
        """Stand still, as after SIGSTOP: what it has asked for goes on, and it learns nothing."""
        self._is_running.clear()

    def go_on(self) -> None:
        """Notice what happened meanwhile."""
        self._is_running.set()

    def crash(self) -> None:
        """End: nothing that it does from now on has any effect."""
        self._is_alive = False
        self._is_running.set()

    async def sleep(self, seconds: float) -> None:
        """Wait; longer, where it stands still."""
        await asyncio.sleep(seconds)
        await self._is_running.wait()

    async def ask(self, serve: Callable[[], _T], *, delay: float = 0.0) -> _T:
        """Ask a service: what it does takes effect whatever has become of this process by then.

        Args:
            serve: What the service does, at one moment; what it returns or raises is the answer.
            delay: How long the request is under way, besides chance.

        Raises:
            TimeoutError: There was no answer within `ANSWER_SECONDS`.
        """
        if not self._is_alive:
            raise asyncio.CancelledError
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_T] = loop.create_future()

        def arrive() -> None:
            try:
                served = serve()
            except Exception as error:  # noqa: BLE001 - the service's answer
                if isinstance(error, ViolationError):
                    # Whoever asked may go on after any error.
                    loop.call_exception_handler({"message": "an invariant", "exception": error})
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(served)

        def expire() -> None:
            if not answer.done():
                answer.set_exception(TimeoutError())

        loop.call_later(delay + self._latency(), arrive)
        expiry = loop.call_later(ANSWER_SECONDS, expire)
        try:
            return await self.hear(answer)
        finally:
            expiry.cancel()

    async def hear(self, answer: Awaitable[_T]) -> _T:
        """Return *answer* once it has come, and this process runs."""
        result = await answer
        await self.sleep(self._latency())
        if not self._is_alive:
            raise asyncio.CancelledError
        return result

    def _latency(self) -> float:
        return self._chance.uniform(0, self._chance.choice((0.0, 0.0, 0.001, 0.05, 0.5)))
