"""The pull worker: lease, decode, project, and only then acknowledge."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry import metrics

from run_log.core import (
    DeadLetterReason,
    EventDecodeError,
    Outcome,
    ReceivedMessage,
    RunEvent,
    StoreUnavailableError,
    TransportError,
    TransportUnavailableError,
    decode_event,
    get_logger,
)

from ._ports import DeadLetters, MessageSource
from ._projector import Projector

_FIRST_BACKOFF_SECONDS: Final = 0.5
_LONGEST_BACKOFF_SECONDS: Final = 30.0
_SHORTEST_PAUSE_SECONDS: Final = 0.05

_Bad = tuple[ReceivedMessage, DeadLetterReason, str]
"""A message for the dead letters, with why."""

_logger: Final = get_logger("run_log.projector")
_dead_letters: Final = metrics.get_meter("run_log.projector").create_counter(
    "run_log.projector.dead_letters", unit="{message}", description="Messages dead-lettered, by reason"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PullLimits:
    """How much a pull worker has in hand."""

    pulls: int = 4
    """Pulls waiting at once: one alone leaves the worker idle for a round trip after each."""
    messages: int = 1_000
    """Most messages a pull asks for: the most Pub/Sub returns."""
    batch: int = 500
    """Most messages projected together."""
    waiting: int = 4_000
    """Messages leased and not yet projected at which pulling pauses."""
    pull_seconds: float = 60.0
    """How long a pull waits for a first message. Longer than a broker waits, so that the broker ends it:
    ended from here, it might take messages along that were just leased to it."""
    stop_seconds: float = 2.0
    """How long a pull under way may take once the worker is told to stop, for the same reason."""
    drain_seconds: float = 6.0
    """How long what is in hand may take to be projected once the worker is told to stop."""


@dataclass(slots=True, kw_only=True)
class PullReport:
    """What a pull worker has done."""

    pulled: int = 0
    """Messages leased."""
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    """Decoded messages by what became of them."""
    dead_lettered: int = 0
    """Messages put to the dead letters."""
    released: int = 0
    """Messages given back, to be delivered again."""


class PullWorker:
    """Moves messages from a source into a projection, losing none.

    A message is acknowledged after its event is durable, or after it is kept among the dead letters. On
    a passing fault it is given back. Crash at any point: it is delivered again, and changes nothing twice.

    Args:
        source: Where messages come from.
        projector: Where events go.
        dead_letters: Where messages go that are no events, or that the store refuses.
        limits: How much is in hand.
        now: Monotonic seconds.
        sleep: Waits that many seconds.
        uniform: Returns a random number between two, to spread retries.
    """

    def __init__(
        self,
        source: MessageSource,
        projector: Projector,
        dead_letters: DeadLetters,
        *,
        limits: PullLimits = PullLimits(),
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._source = source
        self._projector = projector
        self._dead_letters = dead_letters
        self._limits = limits
        self._now = now
        self._sleep = sleep
        self._uniform = uniform
        self._waiting: deque[ReceivedMessage] = deque()
        self._in_hand: list[ReceivedMessage] = []
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._last_arrival = 0.0
        self._pull_trouble: TransportUnavailableError | None = None
        self._store_trouble: StoreUnavailableError | None = None
        self.report = PullReport()

    async def run(self, *, stop: asyncio.Event, until_idle: float | None = None) -> PullReport:
        """Work until *stop* is set, or until nothing has arrived for *until_idle* seconds.

        What is in hand by then is finished, or given back.

        Args:
            stop: Ends the work.
            until_idle: Seconds without a message; None works until stopped.

        Raises:
            TransportRefusedError: The subscription is not there, or denied.
            ConfigurationError: The store is not there, or does not let us in.
            TransportUnavailableError: It was idle only because the broker did not answer.
            StoreUnavailableError: It was idle only because the store did not take what came.
        """
        self._last_arrival = self._now()
        self._room.set()
        stopping, ended = asyncio.Event(), asyncio.Event()
        watch = asyncio.create_task(self._watch(stop, stopping, until_idle))
        work = [asyncio.create_task(self._pull_until(stopping)) for _ in range(self._limits.pulls)]
        commit = asyncio.create_task(self._commit_until(ended))
        try:
            await _all_or_first_error(work, beside=commit)
            ended.set()
            self._changed.set()
            await asyncio.wait({commit}, timeout=self._limits.drain_seconds)
            if commit.done():
                commit.result()
            if not stop.is_set():
                self._raise_trouble()
        finally:
            await _cancel([watch, *work, commit])
            left = [*self._in_hand, *self._waiting]
            self._in_hand = []
            self._waiting.clear()
            await self._release(left)
        return self.report

    def _raise_trouble(self) -> None:
        """Raise what the last pull or commit failed with: silence then does not mean that all is done."""
        trouble = self._pull_trouble or self._store_trouble
        if trouble is not None:
            raise trouble

    async def _watch(self, stop: asyncio.Event, stopping: asyncio.Event, until_idle: float | None) -> None:
        """Set *stopping* when it is time to stop."""
        while until_idle is not None and not stop.is_set():
            left = until_idle - (self._now() - self._last_arrival)
            quiet = not self._waiting and not self._in_hand
            if left <= 0 and quiet:
                break
            await self._pause(max(left, _SHORTEST_PAUSE_SECONDS), unless=stop)
        if until_idle is None:
            await stop.wait()
        stopping.set()

    async def _pull_until(self, stopping: asyncio.Event) -> None:
        failures = 0
        while not stopping.is_set():
            pull = asyncio.create_task(self._pull())
            try:
                await _wait_unless(stopping, pull)
                if not pull.done():
                    await asyncio.wait({pull}, timeout=self._limits.stop_seconds)
            finally:
                # Left running, it would lease messages that nobody looks at.
                await _cancel([pull])
            try:
                if not pull.cancelled():
                    pull.result()
                    self._pull_trouble = None
                failures = 0
            except TransportUnavailableError as error:
                failures += 1
                self._pull_trouble = error
                _logger.warning("run_log_pull_failed", failures=failures, error=str(error))
                await self._pause(self._backoff(failures), unless=stopping)

    async def _pull(self) -> None:
        await self._room.wait()
        self._arrived(await self._source.pull(self._limits.messages, wait=self._limits.pull_seconds))

    def _arrived(self, messages: Sequence[ReceivedMessage]) -> None:
        if not messages:
            return
        if self._store_trouble is None:
            # What comes back only because it was given back is no arrival.
            self._last_arrival = self._now()
        self.report.pulled += len(messages)
        self._waiting.extend(messages)
        self._changed.set()
        if len(self._waiting) >= self._limits.waiting:
            self._room.clear()

    async def _commit_until(self, ended: asyncio.Event) -> None:
        failures = 0
        while not (ended.is_set() and not self._waiting):
            if not self._waiting:
                self._changed.clear()
                await self._changed.wait()
                continue
            size = min(len(self._waiting), self._limits.batch)
            self._in_hand = [self._waiting.popleft() for _ in range(size)]
            if len(self._waiting) < self._limits.waiting:
                self._room.set()
            try:
                await self._settle(self._in_hand)
                self._store_trouble = None
                failures = 0
            except StoreUnavailableError as error:
                failures += 1
                self._store_trouble = error
                _logger.warning("run_log_store_unavailable", failures=failures, error=str(error))
                await self._release(self._in_hand)
                await self._pause(self._backoff(failures), unless=ended)
            self._in_hand = []

    async def _settle(self, messages: Sequence[ReceivedMessage]) -> None:
        """Project *messages*; acknowledge each one whose fate is durable, give back the others."""
        good: list[ReceivedMessage] = []
        events: list[RunEvent] = []
        bad: list[_Bad] = []
        for message in messages:
            try:
                events.append(decode_event(message))
                good.append(message)
            except EventDecodeError as error:
                bad.append((message, DeadLetterReason(error.reason), str(error)))
        done: list[ReceivedMessage] = []
        for message, projected in zip(good, await self._projector.project(events), strict=True):
            self.report.outcomes[projected.outcome] += 1
            if projected.error is None:
                done.append(message)
            else:
                bad.append((message, DeadLetterReason.WRITE_REFUSED, str(projected.error)))
        await self._acknowledge(done)
        # Last, so that dead letters neither hold up the others nor are put again while the store is away.
        kept = await asyncio.gather(*(self._keep(*item) for item in bad))
        await self._acknowledge([item[0] for item, is_kept in zip(bad, kept, strict=True) if is_kept])
        await self._release([item[0] for item, is_kept in zip(bad, kept, strict=True) if not is_kept])

    async def _keep(self, message: ReceivedMessage, reason: DeadLetterReason, error: str) -> bool:
        """Put *message* to the dead letters; return whether it is there."""
        try:
            await self._dead_letters.put(message, reason=reason, error=error)
        except TransportError as failure:
            _logger.warning("run_log_dead_letter_failed", message_id=message.message_id, error=str(failure))
            return False
        self.report.dead_lettered += 1
        _dead_letters.add(1, {"reason": reason.value})
        _logger.warning(
            "run_log_dead_lettered", message_id=message.message_id, reason=reason.value, error=error
        )
        return True

    async def _acknowledge(self, messages: Sequence[ReceivedMessage]) -> None:
        if not messages:
            return
        try:
            await self._source.acknowledge([message.ack_id for message in messages])
        except TransportError as error:
            # They come again, and change nothing.
            _logger.warning("run_log_acknowledge_failed", messages=len(messages), error=str(error))

    async def _release(self, messages: Sequence[ReceivedMessage]) -> None:
        if not messages:
            return
        self.report.released += len(messages)
        try:
            await self._source.release([message.ack_id for message in messages])
        except TransportError as error:
            # They come again all the same, when their lease ends.
            _logger.warning("run_log_release_failed", messages=len(messages), error=str(error))

    def _backoff(self, failures: int) -> float:
        return self._uniform(
            0, min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** min(failures, 16))
        )

    async def _pause(self, seconds: float, *, unless: asyncio.Event) -> None:
        await _wait_unless(unless, asyncio.ensure_future(self._sleep(seconds)), cancel=True)


async def _wait_unless(event: asyncio.Event, future: asyncio.Future[Any], *, cancel: bool = False) -> None:
    """Wait until *future* is done or *event* is set."""
    signal: asyncio.Future[Any] = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({future, signal}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancel([signal, *([future] if cancel else [])])


async def _all_or_first_error(work: Sequence[asyncio.Task[None]], *, beside: asyncio.Task[None]) -> None:
    """Wait until all of *work* is done; raise the first error of any, or of the task *beside* it."""
    waiting = set(work)
    while waiting:
        done, _ = await asyncio.wait({*waiting, beside}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        waiting -= done


async def _cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
