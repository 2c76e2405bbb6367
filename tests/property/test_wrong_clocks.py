"""Clocks that are years ahead or behind among honest ones, which read each other's runs and answer them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from run_log.core import (
    EventDecodeError,
    Message,
    NotPausedError,
    RunNotFoundError,
    RunStatus,
    WriteRefusedError,
    decode_event,
)
from run_log.core.clock import MAX_AHEAD, HybridLogicalClock
from run_log.core.models import RunKey
from run_log.core.wire import check_stamp
from run_log.producer import PubSubRunLogService, RunEventEmitter, record_run, resume_run
from run_log.producer._handle import RunHandle
from run_log.producer._recorder import RunRecorder
from run_log.producer._store_transport import StoreTransport
from run_log.producer._transport import DeliveryPolicy
from run_log.stores import InMemoryRunLogService, RunLog
from run_log.testing import an_event

from .core_strategies import examples

TRUE_START: Final = 1_790_000_000_000_000
SECOND: Final = 1_000_000
YEAR: Final = 365 * 86_400 * SECOND
OFFSETS: Final = (0, 0, 3 * SECOND, 3_600 * SECOND, 10 * YEAR, -10 * YEAR)
"""How far the machines' clocks are ahead. The first three are honest."""
HONEST: Final = range(3)
READINGS: Final = 1_000
"""More than are made in one story while the time stands still."""

machines = st.integers(min_value=0, max_value=len(OFFSETS) - 1)
Step = tuple[object, ...]


def block(worker: int, other: int, *, rejects: bool) -> list[Step]:
    """Return what happens where a block pauses its run, another machine answers, and the block goes on."""
    answer = ("answer", other, worker, rejects)
    return [("begin", worker), ("pause", worker), answer, ("go on", worker), ("leave", worker)]


def handover(worker: int, other: int) -> list[Step]:
    """Return what happens where a block leaves its run paused, and another machine goes on with it."""
    return [("begin", worker), ("pause", worker), ("leave", worker), ("resume", other, worker)]


asides = st.one_of(
    st.tuples(st.sampled_from(["look", "look", "project", "begin", "pause", "leave"]), machines),
    st.tuples(st.just("answer"), machines, machines, st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from([1, SECOND, 150 * SECOND, 7_200 * SECOND])),
)
scenes = st.one_of(
    st.builds(block, machines, machines, rejects=st.booleans()),
    st.builds(handover, machines, machines),
    asides.map(lambda aside: [aside]),
)


@st.composite
def stories(draw: st.DrawFn) -> list[Step]:
    """Return scenes, one after another or in between, with asides."""
    story: list[Step] = []
    for scene in draw(st.lists(scenes, max_size=6)):
        place = draw(st.integers(min_value=0, max_value=len(story)))
        for step in scene:
            story.insert(place, step)
            place += 1
            if draw(st.booleans()):
                story.insert(place, draw(asides))
                place += 1
    return story


@dataclass
class Time:
    """The true time, in microseconds since the epoch."""

    now: int = TRUE_START

    def ahead(self, offset: int) -> Callable[[], int]:
        """Return what a clock reads that is so far ahead."""
        return lambda: self.now + offset

    @property
    def moment(self) -> datetime:
        """The true time as a broker tells it."""
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.now)


@dataclass
class Topic:
    """What is published, and when; a projector takes it in any order."""

    time: Time
    waiting: list[tuple[Message, datetime]] = field(default_factory=list[tuple[Message, datetime]])

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        self.waiting += [(message, self.time.moment) for message in messages]

    def close(self) -> None:
        """See `Transport.close`."""

    async def project(self, store: InMemoryRunLogService, chance: random.Random) -> None:
        """Have all that waits projected, some of it twice; what is stamped too far ahead is set aside."""
        waiting, self.waiting = self.waiting, []
        again = [chance.choice(waiting)] if waiting else []
        for message, published in chance.sample([*waiting, *again], len(waiting) + len(again)):
            event = decode_event(message)
            with suppress(EventDecodeError):
                check_stamp(event, published)
                await store.apply([event])


def view(store: InMemoryRunLogService, clock: HybridLogicalClock) -> InMemoryRunLogService:
    """Return the service of another process, by its own clock, of the same runs."""
    other = InMemoryRunLogService(clock=clock)
    vars(other).update({**vars(store), "version_clock": clock})
    return other


class Machine:
    """A process with a clock, a service and an emitter, and a workflow that records one run."""

    def __init__(self, number: int, time: Time, store: InMemoryRunLogService, topic: Topic | None) -> None:
        self.key: RunKey = ("w", f"r{number}")
        self.time = time
        self.clock = HybridLogicalClock(time.ahead(OFFSETS[number]))
        self.reader = view(store, self.clock)
        policy = DeliveryPolicy(linger=0)
        transport = StoreTransport(lambda: store) if topic is None else topic
        self.emitter = RunEventEmitter(transport, policy=policy, clock=self.clock)
        self.service: RunLog = self.reader
        if topic is not None:
            self.service = PubSubRunLogService(emitter=self.emitter, reader=self.reader)
        self.recorder: RunRecorder | None = None
        self.handle: RunHandle | None = None
        self.said: RunStatus | None = None

    def begin(self) -> None:
        """Enter a block that records the machine's run, once."""
        if self.said is None:
            self._enter(record_run(self.key[0], run_id=self.key[1], emitter=self.emitter))

    def _enter(self, recorder: RunRecorder) -> None:
        self.recorder, self.handle = recorder, recorder.__enter__()
        self.said = RunStatus.RUNNING

    def pause(self) -> None:
        """Pause within the block."""
        if self.handle is not None:
            self.handle.pause("look?")
            self.said = RunStatus.PAUSED

    def go_on(self) -> None:
        """Go on within the block, without having read anything."""
        if self.handle is not None and self.said is RunStatus.PAUSED:
            self.handle.resume()
            self.said = RunStatus.RUNNING

    def leave(self) -> None:
        """Leave the block: paused where the run is, else as a success."""
        if self.recorder is not None:
            self.recorder.__exit__(None, None, None)
            self.recorder = self.handle = None
            if self.said is RunStatus.RUNNING:
                self.said = RunStatus.SUCCESS

    async def look(self) -> None:
        """List what there is, as a dashboard does."""
        await self.service.list_runs("w")
        await self.service.get_pending_runs()

    def check_clock(self) -> None:
        """Check that the clock is within a minute of the machine's, but for the readings it made there."""
        assert self.clock.last - self.clock._now() <= MAX_AHEAD + READINGS  # pyright: ignore[reportPrivateUsage]


class Story:
    """Machines that work on one run log, directly or through a topic."""

    def __init__(self, *, published: bool) -> None:
        self.time = Time()
        self.chance = random.Random(0)
        self.store = InMemoryRunLogService(clock=HybridLogicalClock(self.time.ahead(0)))
        self.topic = Topic(self.time) if published else None
        self.machines = [Machine(number, self.time, self.store, self.topic) for number in range(len(OFFSETS))]
        self.answered: set[RunKey] = set()

    async def project(self) -> None:
        """Have queries see what was said."""
        for machine in self.machines:
            machine.emitter.flush_sync(30)
        if self.topic is not None:
            await self.topic.project(self.store, self.chance)

    async def do(self, step: Step) -> None:
        """Do a step, and check the honest clocks."""
        match step:
            case ("pass", int(micros)):
                self.time.now += micros
            case ("project", _):
                await self.project()
            case ("look", int(number)):
                await self.machines[number].look()
            case ("answer", int(number), int(whose), bool(rejects)):
                await self._answer(self.machines[number].service, self.machines[whose].key, rejects=rejects)
            case ("resume", int(number), int(whose)):
                await self._resume(self.machines[number], self.machines[whose])
            case (str(what), int(number)):
                getattr(self.machines[number], what.replace(" ", "_"))()
            case _:
                raise AssertionError(step)
        if self.topic is None:
            await self.project()
        for number in HONEST:
            self.machines[number].check_clock()

    async def _answer(self, service: RunLog, key: RunKey, *, rejects: bool) -> None:
        answer = service.reject if rejects else service.resume
        # A machine years behind takes every run for one that is years ahead.
        with suppress(NotPausedError, RunNotFoundError, WriteRefusedError):
            await answer(*key, answered_by="mei")
            self.answered.add(key)

    async def _resume(self, machine: Machine, whose: Machine) -> None:
        """Have a machine go on with a run that another one's block has left paused, and end it."""
        if whose.said is not RunStatus.PAUSED or whose.handle is not None or machine.handle is not None:
            return
        await self.project()
        async with resume_run(
            *whose.key, answered_by="mei", run_log=machine.service, emitter=machine.emitter, timeout=30
        ):
            pass
        is_heard = self.topic is None or OFFSETS[self.machines.index(machine)] <= 3_600 * SECOND
        if is_heard:
            whose.said = RunStatus.SUCCESS

    async def end(self) -> None:
        """See that each run stands as its own worker said last, or as an answer left it that came after."""
        await self.project()
        for machine in self.machines:
            run = await self.store.get_run(*machine.key)
            is_heard = self.topic is None or OFFSETS[self.machines.index(machine)] <= 3_600 * SECOND
            if machine.said is None or not is_heard:
                assert self.topic is not None or run is None
                continue
            assert run is not None
            if machine.said is not RunStatus.PAUSED or machine.key not in self.answered:
                assert machine.said is run.status, machine.key


def told(story: Sequence[Step], *, published: bool) -> None:
    """Tell a story to its end."""

    async def tell() -> None:
        world = Story(published=published)
        ahead = TRUE_START + 20 * YEAR
        await world.store.apply(
            [an_event(workflow_id="w", id="ahead", status=RunStatus.PAUSED, hlc=ahead, event_id="e")]
        )
        try:
            for step in story:
                await world.do(step)
            await world.end()
        finally:
            for machine in world.machines:
                machine.emitter.close(30)

    asyncio.run(tell())


@pytest.mark.parametrize("published", [False, True], ids=["a store", "a topic"])
@examples(40)
@example(block(0, 4, rejects=False))
@example([("look", 0), *block(1, 0, rejects=True)])
@example(handover(4, 0))
@example(handover(0, 5))
@given(stories())
def test_wrong_clocks_among_honest_ones(published: bool, story: list[Step]) -> None:  # noqa: FBT001
    """However wrong other clocks are, a run ends as its own worker said, and no right clock follows them.

    Through a topic the worker has to be honest, too.
    """
    told(story, published=published)
