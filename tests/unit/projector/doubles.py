"""Hand-written stores, sources and dead letters that fail on demand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from run_log.core import (
    DeadLetterReason,
    Message,
    Outcome,
    ReceivedMessage,
    RunEvent,
    TransportUnavailableError,
    WriteRefusedError,
    encode_event,
)
from run_log.projector import DeadLetters, MessageSource, Projector, PullLimits, PullReport, PullWorker
from run_log.stores import InMemoryRunLogService
from run_log.testing import InMemorySubscription, InMemoryTopic

QUICK = PullLimits(pulls=2, pull_seconds=0.01, stop_seconds=0.01)
"""Pulls that return soon, so that a test ends soon."""

JUNK = Message(data=b"no json", attributes={"from": "elsewhere"})


class ScriptedStore(InMemoryRunLogService):
    """Raises the errors it is given, one a call; refuses some events for good; may be held."""

    def __init__(
        self, errors: Iterable[Exception] = (), *, refuses: Callable[[RunEvent], bool] = lambda _: False
    ) -> None:
        super().__init__()
        self._errors = iter(errors)
        self._refuses = refuses
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.calls = 0

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""
        self.calls += 1
        self.entered.set()
        await self.gate.wait()
        error = next(self._errors, None)
        if error is not None:
            raise error
        if any(self._refuses(event) for event in events):
            raise WriteRefusedError("too large")
        return await super().apply(events)


class Letters:
    """Keeps dead letters, after raising the errors it is given."""

    def __init__(self, errors: Iterable[Exception] = ()) -> None:
        self._errors = iter(errors)
        self.kept: list[tuple[ReceivedMessage, DeadLetterReason, str]] = []

    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
        """See `DeadLetters.put`."""
        failure = next(self._errors, None)
        if failure is not None:
            raise failure
        self.kept.append((message, reason, error))

    @property
    def reasons(self) -> list[str]:
        """Why each is there."""
        return [reason.value for _, reason, _ in self.kept]


class WatchedSource:
    """A subscription whose calls are kept in order, and fail as told."""

    def __init__(
        self,
        subscription: InMemorySubscription,
        *,
        pull_errors: Iterable[Exception] = (),
        answer_errors: Iterable[Exception] = (),
    ) -> None:
        self._subscription = subscription
        self._pull_errors = iter(pull_errors)
        self._answer_errors = iter(answer_errors)
        self.acknowledged: list[str] = []
        self.released: list[str] = []
        self.extended: list[tuple[list[str], float]] = []
        self.pulled: deque[ReceivedMessage] = deque()

    async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage]:
        """See `MessageSource.pull`."""
        error = next(self._pull_errors, None)
        if error is not None:
            raise error
        messages = await self._subscription.pull(max_messages, wait=wait)
        self.pulled.extend(messages)
        return messages

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.acknowledge`."""
        error = next(self._answer_errors, None)
        if error is not None:
            raise error
        self.acknowledged.extend(ack_ids)
        await self._subscription.acknowledge(ack_ids)

    async def release(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.release`."""
        error = next(self._answer_errors, None)
        if error is not None:
            raise error
        self.released.extend(ack_ids)
        await self._subscription.release(ack_ids)

    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """See `MessageSource.extend`."""
        error = next(self._answer_errors, None)
        if error is not None:
            raise error
        self.extended.append((list(ack_ids), seconds))
        await self._subscription.extend(ack_ids, seconds)

    async def close(self) -> None:
        """See `MessageSource.close`."""


class CountedSource(WatchedSource):
    """A subscription that knows how many pulls have begun, how long each waits, and how many were cut off."""

    begun = cut_off = 0

    def __init__(self, subscription: InMemorySubscription, *, pull_errors: Iterable[Exception] = ()) -> None:
        super().__init__(subscription, pull_errors=pull_errors)
        self.waits: list[float] = []

    async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage]:
        """See `MessageSource.pull`."""
        self.begun += 1
        self.waits.append(wait)
        try:
            return await super().pull(max_messages, wait=wait)
        except asyncio.CancelledError:
            self.cut_off += 1
            raise


def published(*messages: RunEvent | Message) -> InMemorySubscription:
    """Return a subscription that holds *messages*."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    topic.publish([encode_event(m) if isinstance(m, RunEvent) else m for m in messages])
    return subscription


def make_worker(
    source: MessageSource,
    store: InMemoryRunLogService,
    letters: DeadLetters | None = None,
    limits: PullLimits = QUICK,
    **options: Any,
) -> PullWorker:
    """Return a worker that retries at once."""
    given: dict[str, Any] = {"limits": limits, "uniform": nearly_zero, **options}
    return PullWorker(source, Projector(store), Letters() if letters is None else letters, **given)


async def worked_off(worker: PullWorker, subscription: InMemorySubscription) -> PullReport:
    """Let *worker* work until nothing is left in *subscription*; return its report."""
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop=stop))
    await eventually(lambda: subscription.backlog == 0 or running.done())
    stop.set()
    return await running


def nearly_zero(_shortest: float, _longest: float) -> float:
    """Return a retry's wait that is short."""
    return 0.001


async def eventually(done: Callable[[], bool]) -> None:
    """Return once *done* says so; other coroutines run meanwhile."""
    async with asyncio.timeout(30):
        while not done():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


def down() -> TransportUnavailableError:
    """Return a passing fault."""
    return TransportUnavailableError("down")


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """Return the fields of every log record of *event*."""
    return [vars(record) for record in caplog.records if vars(record).get("event") == event]
