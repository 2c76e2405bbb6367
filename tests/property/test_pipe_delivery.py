from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from run_log.core import (
    DeadLetterReason,
    Message,
    Outcome,
    ReceivedMessage,
    RunEvent,
    RunStatus,
    StoreUnavailableError,
    TransportUnavailableError,
    WriteRefusedError,
)
from run_log.core.models import RunKey
from run_log.producer import FlushReport, RunEventEmitter
from run_log.producer._transport import DeliveryPolicy
from run_log.projector import GroupLimits, Projector, PullLimits, PullReport, PullWorker
from run_log.stores import InMemoryRunLogService
from run_log.testing import Faults, InMemorySubscription, InMemoryTopic, a_run, an_event

from .core_strategies import examples

_PATIENCE: Final = 30.0
_FAULTS: Final = Faults(duplicate=0.3, reorder=0.5, delay=0.3, fail=0.3)
_LIMITS: Final = PullLimits(
    pulls=2,
    messages=7,
    group=GroupLimits(batch=5, messages=20, gather_seconds=0.001),
    pull_seconds=0.01,
    stop_seconds=0.01,
    drain_seconds=5,
)
_JUNK: Final = Message(data=b"no json")


class _Flaky(InMemoryRunLogService):
    """Now and then does not answer, before or after it has stored what it was given; refuses some runs."""

    def __init__(self, chance: random.Random, refused: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._chance = chance
        self._refused = refused

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        await asyncio.sleep(0)
        if self._chance.random() < 0.1:
            raise StoreUnavailableError("lost on the way there")
        if any(event.run.id in self._refused for event in events):
            raise WriteRefusedError("never")
        outcomes = await super().apply(events)
        await asyncio.sleep(0)
        if self._chance.random() < 0.1:
            raise StoreUnavailableError("lost on the way back")
        return outcomes


class _Letters:
    """Now and then keeps nothing."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.kept: list[tuple[bytes, DeadLetterReason]] = []

    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
        """See `DeadLetters.put`."""
        await asyncio.sleep(0)
        if self._chance.random() < 0.2:
            raise TransportUnavailableError(f"not now: {error}")
        self.kept.append((message.data, reason))


def _worker(
    subscription: InMemorySubscription, store: InMemoryRunLogService, letters: _Letters
) -> PullWorker:
    return PullWorker(
        subscription, Projector(store), letters, limits=_LIMITS, uniform=lambda _low, _high: 0.001
    )


async def _crash_some(
    chance: random.Random, subscription: InMemorySubscription, store: InMemoryRunLogService, letters: _Letters
) -> None:
    """Run workers side by side, and cancel each somewhere in the middle."""
    workers = [
        asyncio.create_task(_worker(subscription, store, letters).run(stop=asyncio.Event())) for _ in range(3)
    ]
    for worker in workers:
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        worker.cancel()
    await asyncio.wait(workers)


_UNAVAILABLE = (StoreUnavailableError, TransportUnavailableError)


async def _drain(
    subscription: InMemorySubscription, store: InMemoryRunLogService, letters: _Letters
) -> list[PullReport]:
    """Let two workers at once finish the work."""
    reports: list[PullReport] = []
    async with asyncio.timeout(_PATIENCE):
        while subscription.backlog:
            workers = [_worker(subscription, store, letters) for _ in range(2)]
            runs = (worker.run(stop=asyncio.Event(), until_idle=0.02) for worker in workers)
            for ended in await asyncio.gather(*runs, return_exceptions=True):
                # What was silent only because a side failed says so; the next round goes on.
                assert not isinstance(ended, BaseException) or isinstance(ended, _UNAVAILABLE)
            reports += [worker.report for worker in workers]
    return reports


def _events(chance: random.Random, count: int) -> list[RunEvent]:
    """Return events of few runs, in no order."""
    statuses = list(RunStatus)
    return [
        an_event(
            a_run(
                workflow_id=f"w{chance.randrange(2)}",
                id=f"r{chance.randrange(6)}",
                status=chance.choice(statuses),
                attempt=chance.randrange(1, 3),
                result={"number": number},
            ),
            hlc=chance.randrange(20),
            event_id=f"{number:04}",
        )
        for number in range(count)
    ]


async def _assert_folded(store: InMemoryRunLogService, events: Sequence[RunEvent]) -> None:
    """Check the store against the plainest fold there is: of each run, the event of greatest version."""
    newest: dict[RunKey, RunEvent] = {}
    for event in sorted(events, key=lambda event: event.version):
        newest[event.key] = event
    for key, event in newest.items():
        assert event.run == await store.get_run(*key)
        versions = [line.version for line in await store.get_history(*key)]
        assert sorted(other.version for other in events if other.key == key) == versions
    for workflow_id in {workflow_id for workflow_id, _ in newest}:
        states = [event.status for event in newest.values() if event.run.workflow_id == workflow_id]
        recount = {"total": len(states), "successful": states.count(RunStatus.SUCCESS)}
        assert recount == await store.get_stats(workflow_id)


async def _through_the_pipe(seed: int) -> None:
    chance = random.Random(seed)
    topic = InMemoryTopic(faults=_FAULTS, seed=seed)
    subscription = topic.subscribe()
    store, letters = _Flaky(chance), _Letters(chance)
    events = _events(chance, chance.randrange(1, 60))
    emitter = RunEventEmitter(topic, policy=DeliveryPolicy(uniform=lambda _low, _high: 0.0, linger=0))
    for event in events:
        emitter.emit(event)
    report = await emitter.flush(_PATIENCE)
    await asyncio.to_thread(emitter.close)
    assert FlushReport(delivered=len(events), pending=0, dropped=0) == report

    for _ in range(3):
        await _crash_some(chance, subscription, store, letters)
        assert subscription.outstanding == 0
    await _drain(subscription, store, letters)

    assert letters.kept == []
    await _assert_folded(store, events)


@examples(25)
@given(st.integers(min_value=0, max_value=2**32))
def test_nothing_is_lost_and_nothing_counts_twice(seed: int) -> None:
    """Whatever broker and store do, and wherever workers crash: state equals a fold, stats a recount."""
    asyncio.run(_through_the_pipe(seed))


async def _with_culprits(count: int, refused: frozenset[str], junk: int, seed: int) -> None:
    chance = random.Random(seed)
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    store, letters = _Flaky(chance, refused), _Letters(chance)
    events = [an_event(id=str(number)) for number in range(count)]
    emitter = RunEventEmitter(topic)
    for event in events:
        emitter.emit(event)
    await asyncio.to_thread(emitter.close, _PATIENCE)
    topic.publish([_JUNK] * junk)

    reports = await _drain(subscription, store, letters)

    good = [event for event in events if event.run.id not in refused]
    reasons = [reason for _, reason in letters.kept]
    # A worker that could not acknowledge, or whose batch was lost midway, may keep a message twice.
    assert len(refused) <= reasons.count(DeadLetterReason.WRITE_REFUSED)
    assert junk <= reasons.count(DeadLetterReason.UNDECODABLE)
    refused_bodies = {body for body, reason in letters.kept if reason is DeadLetterReason.WRITE_REFUSED}
    assert len(refused) == len(refused_bodies)
    assert len(letters.kept) == sum(report.dead_lettered for report in reports)
    await _assert_folded(store, good)


@examples(25)
@given(
    st.integers(min_value=1, max_value=15).flatmap(
        lambda count: st.tuples(st.just(count), st.frozensets(st.integers(0, count - 1).map(str)))
    ),
    st.integers(min_value=0, max_value=3),
    st.integers(min_value=0, max_value=2**32),
)
def test_poison_is_kept_alone(culprits: tuple[int, frozenset[str]], junk: int, seed: int) -> None:
    """Events the store refuses, in any positions, and junk are dead-lettered; all others are projected."""
    asyncio.run(_with_culprits(*culprits, junk, seed))


@examples(100)
@given(
    st.integers(min_value=1, max_value=20).flatmap(
        lambda count: st.tuples(st.just(count), st.frozensets(st.integers(0, count - 1)))
    )
)
def test_exactly_the_culprits_are_rejected(culprits: tuple[int, frozenset[int]]) -> None:
    """The projector isolates exactly the events that the store refuses, and answers in order."""
    count, refused = culprits

    class Refusing(InMemoryRunLogService):
        async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
            if any(int(event.run.id) in refused for event in events):
                raise WriteRefusedError("never")
            return await super().apply(events)

    store = Refusing()
    events = [an_event(id=str(number)) for number in range(count)]

    outcomes = asyncio.run(Projector(store).apply(events))

    assert [Outcome.REJECTED if number in refused else Outcome.APPLIED for number in range(count)] == outcomes
    asyncio.run(_assert_folded(store, [e for n, e in enumerate(events) if n not in refused]))
