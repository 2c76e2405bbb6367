"""Dead letters while they are leased. Pub/Sub shows a message only to whom it leases it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from run_log.core import InvalidArgumentError, ReceivedMessage, TransportError
from run_log.core.logs import get_logger
from run_log.projector.ports import MessageSource
from run_log.projector.pull import Leases, cancel, let_end

from .letters import DeadLetter, LetterChoice

QUIET_SECONDS: Final = 5.0
"""After so many seconds without a new letter, all are assumed to be seen. One empty answer means nothing
(https://cloud.google.com/pubsub/docs/pull#pull_api)."""

PAGE: Final = 100
"""Most letters in one pull. Each may have 10 MB."""

PULL_SECONDS: Final = 2.0
"""How long a pull waits at most. The end of the block waits for it."""

STOP_SECONDS: Final = 3.5
"""How long a pull under way may take once the block ends. It has to be longer than a pull with its answer: a
pull that is cut off goes on at the broker, which leases its letters to nobody."""

_logger: Final = get_logger("run_log.projector")


class LeasedLetters:
    """The dead letters, leased while the block lasts. At its end, those not acknowledged are given back.

    Letters of a process that is killed come again when their leases end. Nobody else sees a letter while it
    is leased here, and letters that others have leased are not seen here.

    Args:
        source: The subscription of the dead letters. The caller closes it.
        quiet_seconds: After so many seconds without a new letter, all are assumed to be seen.
        stop_seconds: How long a pull under way may take at the end. What it brings is given back too.
        taken_out: Called by `forget`; None does nothing.
        now: Monotonic seconds.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        source: MessageSource,
        *,
        quiet_seconds: float = QUIET_SECONDS,
        stop_seconds: float = STOP_SECONDS,
        taken_out: Callable[[Sequence[DeadLetter]], Awaitable[None]] | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._source = source
        self._quiet_seconds = quiet_seconds
        self._stop_seconds = stop_seconds
        self._taken_out = taken_out
        self._now = now
        self._leases = Leases(source.extend, now=now, sleep=sleep)
        self._held: dict[str, str] = {}
        self._done: set[str] = set()
        self._pulling: asyncio.Task[Sequence[ReceivedMessage] | None] | None = None

    @property
    def seen(self) -> int:
        """How many letters were seen so far."""
        return len(self._held) + len(self._done)

    async def __aenter__(self) -> Self:
        """Start extending leases."""
        self._keeping = asyncio.create_task(self._leases.keep())
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Give back all that is leased."""
        await cancel([self._keeping])
        # The pull under way is left to end: it may take what is given back here, and returns that at once.
        # Cancelled, it would go on at the broker and keep those letters leased.
        await self._give_back([*self._held.values()])
        await self._give_back(await self._left_in_pull())

    async def more(self) -> list[DeadLetter]:
        """Return letters that were not returned before; none once there was no new one for `quiet_seconds`.

        Raises:
            TransportUnavailableError: The broker does not answer.
            TransportRefusedError: The subscription does not exist, or access is denied.
        """
        left = self._quiet_seconds
        while left > 0:
            asked_at = self._now()
            if fresh := await self._taken(await self._pulled(left)):
                return fresh
            left -= self._now() - asked_at
        return []

    async def chosen(self, choice: LetterChoice) -> AsyncGenerator[list[DeadLetter]]:
        """Yield the letters that *choice* means, page by page.

        An id may be that of a letter, or of the message that became the letter. This ends early once each id
        was seen as that of a letter. Other ids are looked up once all letters were seen.

        Raises:
            InvalidArgumentError: An id is that of a message that became several letters.
            TransportError: See `more`.
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

    async def acknowledge(self, letters: Sequence[DeadLetter]) -> None:
        """Remove *letters* from the dead letters for good.

        Raises:
            TransportUnavailableError: The broker does not answer; they may come again.
            TransportRefusedError: It refuses until somebody acts.
        """
        ids = [letter.message_id for letter in letters]
        await self._source.acknowledge([self._held[message_id] for message_id in ids])
        for message_id in ids:
            self._leases.drop(self._held.pop(message_id))
        self._done.update(ids)

    async def forget(self, letters: Sequence[DeadLetter]) -> None:
        """Tell that *letters* are acknowledged, and what became of them is told: their notices may go."""
        if letters and self._taken_out is not None:
            await self._taken_out(letters)

    async def _give_back(self, ack_ids: Sequence[str]) -> None:
        if not ack_ids:
            return
        try:
            await self._source.release(ack_ids)
        except TransportError as error:
            # They come again when their leases end.
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
                # The lease of the older delivery has ended, so only the newer one can be acknowledged.
                self._leases.drop(known)
            self._held[message.message_id] = message.ack_id
            self._leases.hold([message.ack_id])
        if again:
            await self._source.acknowledge(again)
        return fresh

    async def _pulled(self, wait: float) -> Sequence[ReceivedMessage]:
        """Return what is pulled within *wait* seconds. The pull goes on if this is cancelled."""
        pulling = self._pulling or asyncio.create_task(self._source.pull(PAGE, wait=min(wait, PULL_SECONDS)))
        self._pulling = pulling
        await asyncio.wait({pulling})
        self._pulling = None
        return pulling.result() or []

    async def _left_in_pull(self) -> list[str]:
        """Return the ack ids that the pull under way brings."""
        if self._pulling is None:
            return []
        await let_end([self._pulling], self._stop_seconds)
        if self._pulling.cancelled() or self._pulling.exception() is not None:
            return []
        return [message.ack_id for message in self._pulling.result() or []]


def _one_each(letters: Iterable[DeadLetter]) -> list[DeadLetter]:
    """Return *letters*. Raises `InvalidArgumentError` if two of them were the same message."""
    by_message: dict[str | None, DeadLetter] = {}
    for letter in letters:
        other = by_message.setdefault(letter.original_id, letter)
        if other is not letter:
            raise InvalidArgumentError(
                f"message {letter.original_id!r} became several dead letters, {other.message_id!r} and "
                f"{letter.message_id!r} among them; name the one you mean"
            )
    return [*by_message.values()]
