"""The dead letters, leased: Pub/Sub shows nobody a message without handing it out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from run_log.core import InvalidArgumentError, ReceivedMessage, TransportError
from run_log.core.logs import get_logger
from run_log.projector.ports import MessageSource
from run_log.projector.pull import Leases

from .letters import DeadLetter, LetterChoice

QUIET_SECONDS: Final = 5.0
"""Seconds without a new letter after which all are taken to be seen. An empty answer alone says nothing
(https://cloud.google.com/pubsub/docs/pull#pull_api)."""

PAGE: Final = 100
"""Most letters in one pull: each may have 10 MB."""

PULL_SECONDS: Final = 2.0
"""How long a pull waits at most. What ends the block waits for it."""

STOP_SECONDS: Final = 3.5
"""How long a pull under way may take once the block ends: longer than a pull, answer included. One that is
cut off goes on at the broker, and what it takes is leased to nobody."""

_logger: Final = get_logger("run_log.projector")


class LeasedLetters:
    """The dead letters, leased while the block lasts; at its end, what is not acknowledged is given back.

    That holds however the block ends, but for a process that is killed: then they come again when their
    leases end. Nobody else sees a letter meanwhile, and what others have leased is not seen here.

    Args:
        source: The subscription of the dead letters; the caller closes it.
        quiet_seconds: How long nothing new has to come until all are taken to be seen.
        stop_seconds: How long a pull under way may take at the end; what it brings is given back too.
        now: Monotonic seconds.
        sleep: Waits that many seconds.
    """

    def __init__(
        self,
        source: MessageSource,
        *,
        quiet_seconds: float = QUIET_SECONDS,
        stop_seconds: float = STOP_SECONDS,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._source = source
        self._quiet_seconds = quiet_seconds
        self._stop_seconds = stop_seconds
        self._now = now
        self._leases = Leases(source.extend, now=now, sleep=sleep)
        self._held: dict[str, str] = {}
        self._done: set[str] = set()
        self._pulling: asyncio.Task[Sequence[ReceivedMessage] | None] | None = None

    @property
    def seen(self) -> int:
        """How many letters there were so far."""
        return len(self._held) + len(self._done)

    async def __aenter__(self) -> Self:
        """Begin to extend leases."""
        self._keeping = asyncio.create_task(self._leases.keep())
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Give back what is leased."""
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        # A pull that goes on takes what is given back, so it ends; ended from here, it would keep that.
        await self._give_back([*self._held.values()])
        await self._give_back(await self._left_in_pull())

    async def more(self) -> list[DeadLetter]:
        """Return letters that were not returned before; none once nothing new has come for long enough.

        Raises:
            TransportUnavailableError: The broker does not answer.
            TransportRefusedError: The subscription is not there, or denied.
        """
        left = self._quiet_seconds
        while left > 0:
            asked_at = self._now()
            if fresh := await self._taken(await self._pulled(left)):
                return fresh
            left -= self._now() - asked_at
        return []

    async def chosen(self, choice: LetterChoice) -> AsyncGenerator[list[DeadLetter]]:
        """Yield those that *choice* takes, by and by; it ends early once it has seen each id as a letter's.

        What is no letter's own id may be that of the message that one was, which is known once all are seen.

        Args:
            choice: Which.

        Raises:
            InvalidArgumentError: An id is no letter's own, and several were that message.
            TransportUnavailableError: See `more`.
            TransportRefusedError: See `more`.
        """
        if not choice.ids:
            while page := await self.more():
                yield [letter for letter in page if choice.takes(letter)]
            return
        were: list[DeadLetter] = []
        missing = set(choice.ids)
        while missing and (page := await self.more()):
            missing.difference_update(letter.message_id for letter in page)
            were += [letter for letter in page if letter.original_id in missing]
            yield [letter for letter in page if letter.message_id in choice.ids]
        yield _one_each(
            letter for letter in were if letter.original_id in missing and letter.message_id not in choice.ids
        )

    async def acknowledge(self, letters: Iterable[DeadLetter]) -> None:
        """Take *letters* out of the dead letters for good.

        Raises:
            TransportUnavailableError: The broker does not answer; they may come again.
            TransportRefusedError: It will not, until somebody acts.
        """
        ids = [letter.message_id for letter in letters]
        await self._source.acknowledge([self._held[message_id] for message_id in ids])
        for message_id in ids:
            self._leases.drop(self._held.pop(message_id))
        self._done.update(ids)

    async def _give_back(self, ack_ids: Sequence[str]) -> None:
        if not ack_ids:
            return
        try:
            await self._source.release(ack_ids)
        except TransportError as error:
            # They come again all the same, when their leases end.
            _logger.warning("run_log_release_failed", messages=len(ack_ids), error=str(error))

    async def _taken(self, messages: Sequence[ReceivedMessage]) -> list[DeadLetter]:
        fresh: list[DeadLetter] = []
        again: list[str] = []
        for message in messages:
            if message.message_id in self._done:
                again.append(message.ack_id)
                continue
            known = self._held.get(message.message_id)
            if known is None:
                fresh.append(DeadLetter.from_message(message))
            else:
                # Its lease has ended: only the newer delivery can be answered.
                self._leases.drop(known)
            self._held[message.message_id] = message.ack_id
            self._leases.hold([message.ack_id])
        if again:
            await self._source.acknowledge(again)
        return fresh

    async def _pulled(self, wait: float) -> Sequence[ReceivedMessage]:
        """Return what is pulled within *wait* seconds; where this is cancelled, the pull goes on."""
        if self._pulling is None:
            self._pulling = asyncio.create_task(self._source.pull(PAGE, wait=min(wait, PULL_SECONDS)))
        await asyncio.wait({self._pulling})
        pulling, self._pulling = self._pulling, None
        return pulling.result() or []

    async def _left_in_pull(self) -> list[str]:
        """Return what the pull that goes on brings."""
        if self._pulling is None:
            return []
        await asyncio.wait({self._pulling}, timeout=self._stop_seconds)
        self._pulling.cancel()
        (found,) = await asyncio.gather(self._pulling, return_exceptions=True)
        return [] if isinstance(found, BaseException) else [message.ack_id for message in found or []]


def _one_each(letters: Iterable[DeadLetter]) -> list[DeadLetter]:
    """Return *letters*, if each was another message.

    Raises:
        InvalidArgumentError: Two of them were the same.
    """
    by_message: dict[str | None, DeadLetter] = {}
    for letter in letters:
        other = by_message.setdefault(letter.original_id, letter)
        if other is not letter:
            raise InvalidArgumentError(
                f"message {letter.original_id!r} became several dead letters, {other.message_id!r} and "
                f"{letter.message_id!r} among them; name the one you mean"
            )
    return [*by_message.values()]
