"""Steps, progress and heartbeats, as a workflow records them."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar, NoReturn

import pytest

from run_log.core import (
    InvalidArgumentError,
    Message,
    RunEvent,
    RunProgress,
    RunStatus,
    Step,
    TransportUnavailableError,
    decode_event,
)
from run_log.core.clock import utc_now
from run_log.core.law import fold
from run_log.core.steps import MAX_STEP_BYTES, MAX_STEPS, in_order, joined_steps, step_text
from run_log.producer import (
    RunEventEmitter,
    RunHandle,
    current_step,
    join_run,
    record_run,
    resume_run,
    step,
)
from run_log.producer._held import BufferLimits
from run_log.producer._steps import Pulse, StepBook, StepScope
from run_log.producer._store_transport import StoreTransport
from run_log.producer._timers import Timers
from run_log.producer._transport import DeliveryPolicy
from run_log.stores import InMemoryRunLogService
from run_log.testing import a_run

from .conftest import EmitterMaker
from .transports import PATIENCE, ScriptedTransport, States, logged, run_script, soon

AT_ONCE = DeliveryPolicy(uniform=soon, linger=0, progress=0)
"""Says what changes without waiting."""

NEVER = DeliveryPolicy(uniform=soon, linger=0, progress=3_600)
"""Says nothing between transitions."""


class Watched(ScriptedTransport):
    """Tells when what it has taken is enough."""

    def __init__(self, is_enough: Callable[[list[RunEvent]], bool], *, held: bool = False) -> None:
        super().__init__(held=held)
        self._is_enough = is_enough
        self.enough = threading.Event()

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        super().publish(messages)
        if self._is_enough(self.events):
            self.enough.set()


@pytest.fixture
def emitter(emitter_to: EmitterMaker, transport: ScriptedTransport) -> RunEventEmitter:
    """Make an emitter that says nothing between transitions."""
    return emitter_to(transport, policy=NEVER)


def steps_in(transport: ScriptedTransport) -> tuple[Step, ...]:
    """Return the steps that all events end in."""
    return in_order(joined_steps((), *(event.steps for event in transport.events)))


def summary(steps: Sequence[Step]) -> list[tuple[str, str, str | None]]:
    """Return the name and the status of each of *steps*, and the name of the step around it."""
    names = {step.key: step.name for step in steps}
    return [(step.name, step.status.value, step.parent and names[step.parent]) for step in steps]


def test_steps_nest(emitter: RunEventEmitter, transport: ScriptedTransport) -> None:
    """The end of a run tells all of its steps: nested ones, with their parents, times and attributes."""
    with record_run("w", emitter=emitter) as run:
        with run.step("load") as load:
            load.set(rows=3)
            assert current_step() is load
            with run.step("parse") as parse:
                parse.set(format="csv")
                parse.set(lines=[1, 2])
            assert current_step() is load
        with run.step("save"):
            pass
    assert current_step() is None
    emitter.close(PATIENCE)

    began, ended = transport.events
    steps = steps_in(transport)
    assert ((), steps) == (began.steps, in_order(ended.steps))
    parents = {"load": None, "parse": "load", "save": None}
    assert [(name, "success", parent) for name, parent in parents.items()] == summary(steps)
    assert [{"rows": 3}, {"format": "csv", "lines": [1, 2]}, {}] == [step.attributes for step in steps]
    assert all(step.ended_at and step.ended_at >= step.started_at for step in steps)


async def test_async_steps_side_by_side(emitter: RunEventEmitter, transport: ScriptedTransport) -> None:
    """Tasks of one run record steps at once, each with its own parent."""

    async def work(run: RunHandle, name: str) -> None:
        async with run.step(name):
            await asyncio.sleep(0)
            async with run.step(f"{name}.inner"):
                await asyncio.sleep(0)

    async with record_run("w", emitter=emitter) as run:
        await asyncio.gather(*(work(run, name) for name in "abc"))
    await asyncio.to_thread(emitter.close, PATIENCE)

    parents = {"a": None, "b": None, "c": None, "a.inner": "a", "b.inner": "b", "c.inner": "c"}
    expected = {(name, "success", parent) for name, parent in parents.items()}
    assert expected == set(summary(steps_in(transport)))


def test_threads_of_one_run(emitter: RunEventEmitter, transport: ScriptedTransport) -> None:
    """Threads of one run record steps at once, and none is lost."""
    with record_run("w", emitter=emitter) as run, run.step("all"), ThreadPoolExecutor(8) as pool:

        def work(number: int) -> None:
            with run.step(f"part {number}"):
                pass

        for number in range(50):
            pool.submit(copy_context().run, work, number)
    emitter.close(PATIENCE)

    steps = summary(steps_in(transport))
    assert {("all", "success", None), *((f"part {n}", "success", "all") for n in range(50))} == set(steps)
    assert 51 == len(steps)


def test_steps_without_blocks(emitter: RunEventEmitter, transport: ScriptedTransport) -> None:
    """Steps begin and end by calls in any order, each within the one that is named."""
    run = record_run("w", emitter=emitter).open()
    outer, other = run.begin_step("outer"), run.begin_step("other", key="o")
    inner = run.begin_step("inner", parent=outer.key)
    outer.end()
    inner.end(ValueError("busy"))
    other.end(asyncio.CancelledError())
    again = run.begin_step("other", key="o")
    assert current_step() is None
    run.close()
    emitter.close(PATIENCE)

    expected = [
        ("outer", "success", None),
        ("inner", "failed", "outer"),
        ("other", "running", None),
    ]
    assert set(expected) == set(summary(steps_in(transport)))
    assert 2 == again.attempt


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ValueError("no such file"), "failed", "ValueError: no such file"),
        (asyncio.CancelledError(), "cancelled", "CancelledError: "),
        (KeyboardInterrupt(), "failed", "KeyboardInterrupt: "),
        (SystemExit(0), "success", None),
        (SystemExit(3), "failed", "SystemExit: 3"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exception_fails_the_step_and_goes_on(
    error: BaseException,
    status: str,
    told: str | None,
    emitter: RunEventEmitter,
    transport: ScriptedTransport,
) -> None:
    """A step that an exception leaves says so in a few words; the exception goes on."""
    with pytest.raises(type(error)) as caught, record_run("w", emitter=emitter) as run, run.step("s"):
        raise error
    emitter.close(PATIENCE)

    (step,) = steps_in(transport)
    assert caught.value is error
    assert (status, told) == (step.status.value, step.error)


def test_a_step_that_fails_by_hand(emitter: RunEventEmitter, transport: ScriptedTransport) -> None:
    """A step may be failed by a text, or by an exception that was handled; the run goes on."""
    with record_run("w", emitter=emitter) as run:
        with run.step("a") as one:
            one.fail("not there")
        with run.step("b") as other:
            other.fail(ValueError("bad"))
    emitter.close(PATIENCE)

    steps = steps_in(transport)
    assert [("failed", "not there"), ("failed", "ValueError: bad")] == [
        (s.status.value, s.error) for s in steps
    ]
    assert RunStatus.SUCCESS is transport.events[-1].status


def test_a_step_that_is_tried_again(emitter: RunEventEmitter, transport: ScriptedTransport) -> None:
    """A step that failed is the same one when it is entered again; one that succeeded is another."""
    with record_run("w", emitter=emitter) as run:
        attempts: list[int] = []
        for tried in range(3):
            with run.step("call") as call:
                attempts.append(call.attempt)
                if tried < 2:
                    call.fail("busy")
        with run.step("call") as again:
            attempts.append(again.attempt)
    emitter.close(PATIENCE)

    assert [1, 2, 3, 1] == attempts
    assert [("call", 3, None), ("call", 1, None)] == [
        (s.name, s.attempt, s.error) for s in steps_in(transport)
    ]


@pytest.mark.parametrize(
    ("key", "kept"), [("load", "load"), (7, "7"), ("two words", None), ("", None), ("k" * 65, None)]
)
def test_a_step_by_its_key(
    key: Any, kept: str | None, emitter: RunEventEmitter, transport: ScriptedTransport
) -> None:
    """A step that has a key is the same one whenever it is entered, whatever it is called."""
    with record_run("w", emitter=emitter) as run:
        for name in ("first", "second"):
            with run.step(name, key=key):
                pass
    emitter.close(PATIENCE)

    (step,) = steps_in(transport)
    assert ("second", 2) == (step.name, step.attempt)
    assert kept in (None, step.key)


def test_more_steps_than_a_run_keeps(emitter: RunEventEmitter, transport: ScriptedTransport) -> None:
    """The oldest that have ended give way; one that still runs stays, and its end is told."""
    with record_run("w", emitter=emitter) as run, run.step("all"):
        for number in range(2 * MAX_STEPS):
            with run.step(str(number)):
                pass
        run.pause("look")
        run.resume()
    emitter.close(PATIENCE)

    kept = ["all", *map(str, range(MAX_STEPS + 1, 2 * MAX_STEPS))]
    assert [kept] * 3 == [[step.name for step in in_order(event.steps)] for event in transport.events[1:]]
    assert ("all", "success") == (steps_in(transport)[0].name, steps_in(transport)[0].status.value)


def test_decorated_functions(emitter: RunEventEmitter, transport: ScriptedTransport) -> None:
    """A decorated function is a step of the run around it; without one it is only called."""

    @step("load")
    def load(rows: int) -> int:
        handle = current_step()
        if handle is not None:
            handle.set(rows=rows)
        return 2 * rows

    @step()
    async def save() -> str:
        return "saved"

    assert 4 == load(2)
    with record_run("w", emitter=emitter):
        results = [load(3), asyncio.run(save())]
    emitter.close(PATIENCE)

    assert [6, "saved"] == results
    loaded, saved = steps_in(transport)
    assert ("load", {"rows": 3}) == (loaded.name, loaded.attributes)
    assert saved.name.endswith("save")


def test_what_cannot_be_decorated() -> None:
    """A generator function ends before its work begins, so it is refused."""
    with pytest.raises(InvalidArgumentError, match="generator function"):

        @step("rows")
        def rows() -> Any:
            yield 1


def test_a_name_that_raises(emitter: RunEventEmitter, transport: ScriptedTransport) -> None:
    """Whatever a step is called, and whatever it is given, the workflow goes on."""

    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    done: list[int] = []
    with record_run("w", emitter=emitter) as run:
        hostile: Any = Hostile()
        with run.step(hostile, key=hostile) as one:
            one.set(x=hostile)
            one.fail(hostile)
            done.append(1)
        with run.step("x" * 10_000) as two:
            two.set(large="y" * 10_000, small=1)
            done.append(2)
    report = emitter.close(PATIENCE)

    assert ([1, 2], 0) == (done, report.dropped)
    assert {"large": "run-log: cut, 10002 bytes", "small": 1} == steps_in(transport)[-1].attributes
    assert RunStatus.SUCCESS is transport.events[-1].status


def test_a_full_step_that_fails(emitter: RunEventEmitter, transport: ScriptedTransport) -> None:
    """A step whose attributes leave no room for its error keeps the error, and the smaller attributes."""
    with record_run("w", emitter=emitter) as run:
        step = run.begin_step("load")
        step.set(large="y" * 400, small=1)
        step.end(ValueError("x" * 1_000))
    emitter.close(PATIENCE)
    (failed,) = steps_in(transport)

    assert len(step_text(failed)) <= MAX_STEP_BYTES
    assert str(failed.error).startswith("ValueError: xxx")
    assert {"small": 1} == failed.attributes


def test_a_run_of_a_hundred_steps_emits_its_transitions(
    emitter: RunEventEmitter, transport: ScriptedTransport
) -> None:
    """Steps cost no event each: within the interval they come with the run's next transition."""
    with record_run("w", emitter=emitter) as run:
        for number in range(MAX_STEPS):
            with run.step(str(number)):
                pass
    emitter.close(PATIENCE)

    assert ["running", "success"] == [event.status.value for event in transport.events]
    assert MAX_STEPS == len(steps_in(transport))


def test_a_full_buffer_keeps_all_steps(emitter_to: EmitterMaker) -> None:
    """Where the buffer sheds all but a run's newest event, that has every step."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport, policy=AT_ONCE, limits=BufferLimits(events=2))
    with record_run("other", emitter=emitter):
        transport.entered.wait(PATIENCE)
    with record_run("w", emitter=emitter) as run:
        for number in range(30):
            with run.step(str(number)):
                run.pause()
                run.resume()
    transport.let_go()
    emitter.close(PATIENCE)

    own = [event for event in transport.events if event.run.workflow_id == "w"]
    assert len(own) < 20
    assert 30 == len(joined_steps((), *(event.steps for event in own)))


def test_what_a_run_says_between_its_transitions(emitter_to: EmitterMaker) -> None:
    """Progress and steps are told while the run goes on. They are no transitions, and its end stays."""
    transport = Watched(lambda events: any(event.run.progress and event.steps for event in events))
    emitter = emitter_to(transport, policy=AT_ONCE)
    payload = {"a": [1]}
    with record_run("w", trigger_data=payload, emitter=emitter) as run:
        run.progress(0.4, "2 of 5 files")
        with run.step("load"):
            payload["a"].append(2)
            assert transport.enough.wait(PATIENCE)
    emitter.close(PATIENCE)

    said = [event for event in transport.events if not event.is_transition]
    assert all(event.status is RunStatus.RUNNING for event in said)
    progress = said[-1].run.progress
    assert progress is not None
    assert (0.4, "2 of 5 files") == (progress.fraction, progress.text)
    assert {"a": [1]} == said[-1].run.trigger_data
    change = fold(None, transport.events)
    assert [RunStatus.RUNNING, RunStatus.SUCCESS] == [line.status for line in change.after.history]
    assert RunStatus.SUCCESS is change.after.status
    assert transport.events[-1].run.progress == progress


def test_progress_says_again_what_a_buffer_has_dropped(emitter_to: EmitterMaker) -> None:
    """A run whose begin a full buffer drops is known to run once it says how far it is."""
    transport = Watched(lambda events: any(event.run.progress for event in events), held=True)
    emitter = emitter_to(transport, policy=AT_ONCE, limits=BufferLimits(events=1))
    emitter.emit(a_run(id="first"))
    assert transport.entered.wait(PATIENCE)
    with record_run("w", emitter=emitter) as run:
        emitter.emit(a_run(id="last"))
        emitter.flush_sync(0)
        transport.let_go()
        emitter.flush_sync(PATIENCE)
        run.progress(0.5)
        assert transport.enough.wait(PATIENCE)
        own = [event for event in transport.events if event.run.workflow_id == "w"]
    assert 1 == emitter.stats.dropped
    assert (False, RunStatus.RUNNING) == (own[0].is_transition, fold(None, own).after.status)


@pytest.mark.parametrize(
    ("fraction", "kept"),
    [(2, 1.0), (-1, 0.0), (float("nan"), None), ("much", None), (None, None), (0.5, 0.5)],
)
def test_a_fraction_is_bounded(fraction: Any, kept: float | None, states: States) -> None:
    """How far a run is lies between 0 and 1; what is no number is unknown. The text stays."""
    with record_run("w", emitter=states) as run:
        run.progress(fraction, "some")

    progress = states.runs[-1].progress
    assert progress is not None
    assert (kept, "some") == (progress.fraction, progress.text)


def test_a_heartbeat(emitter_to: EmitterMaker) -> None:
    """A run that is silent says again and again that it is alive, and no more once it is paused or left."""
    transport = Watched(lambda events: sum(not event.is_transition for event in events) >= 3)
    emitter = emitter_to(transport, policy=AT_ONCE)
    with record_run("w", heartbeat=timedelta(milliseconds=1), emitter=emitter) as run:
        assert transport.enough.wait(PATIENCE)
        run.pause()
        emitter.flush_sync(PATIENCE)
        before = len(transport.events)
    emitter.close(PATIENCE)

    assert before == len(transport.events)
    assert 1 == len({event.run.id for event in transport.events})
    assert [RunStatus.RUNNING, RunStatus.PAUSED] == [
        line.status for line in fold(None, transport.events).after.history
    ]


@pytest.mark.parametrize("heartbeat", [30, timedelta(0), timedelta(seconds=-1), "soon"])
def test_what_is_no_heartbeat(
    heartbeat: Any, emitter: RunEventEmitter, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no duration is logged, and the run is recorded without."""
    with record_run("w", run_id="r", heartbeat=heartbeat, emitter=emitter):
        pass
    report = emitter.close(PATIENCE)

    assert (2, 0) == (report.delivered, report.dropped)
    (record,) = logged(caplog, "run_log_heartbeat_left_out")
    assert ("w", "r") == (record["workflow_id"], record["run_id"])


async def test_a_step_that_has_started_before(emitter_to: EmitterMaker) -> None:
    """What joins a run can say when a try of a step started, in any time zone."""
    transport = ScriptedTransport()
    emitter = emitter_to(transport, policy=NEVER)
    begun = datetime(2026, 12, 1, 1, tzinfo=timezone(timedelta(hours=1)))

    with join_run("w", "r", emitter=emitter) as joined, joined.step("render", started_at=begun):
        pass
    await asyncio.to_thread(emitter.close, PATIENCE)

    (step,) = steps_in(transport)
    assert ("render", "2026-12-01T00:00:00+00:00") == (step.name, step.started_at.isoformat())


async def test_steps_of_several_processes(emitter_to: EmitterMaker) -> None:
    """What joins a run adds its steps, whatever the order of arrival, and changes nothing else."""
    transport = ScriptedTransport()
    emitter, elsewhere = emitter_to(transport, policy=NEVER), emitter_to(transport, policy=NEVER)
    with record_run("w", run_id="r", trigger_type="cron", emitter=emitter) as run:
        with run.step("own"):
            pass
        with join_run("w", "r", emitter=elsewhere) as joined, joined.step("other") as other:
            other.set(host="b")
    async with join_run("w", "r", emitter=elsewhere) as joined:
        with joined.step("late"):
            pass
    await asyncio.to_thread(emitter.close, PATIENCE)
    await asyncio.to_thread(elsewhere.close, PATIENCE)

    for events in (transport.events, transport.events[::-1]):
        store = InMemoryRunLogService()
        for event in events:
            await store.apply([event])
        found = await store.get_run("w", "r")
        assert found is not None
        assert (RunStatus.SUCCESS, "cron") == (found.status, found.trigger_type)
        assert ["own", "other", "late"] == [step.name for step in await store.get_steps("w", "r")]
        assert ["running", "success"] == [line.status.value for line in await store.get_history("w", "r")]


async def test_steps_of_a_run_that_goes_on(emitter_to: EmitterMaker) -> None:
    """What resumes a run in another process keeps the steps of the one before."""
    store = InMemoryRunLogService()
    transport = ScriptedTransport()
    emitter, elsewhere = emitter_to(transport, policy=NEVER), emitter_to(transport, policy=NEVER)
    with record_run("w", run_id="r", emitter=emitter) as run:
        with run.step("before"):
            pass
        run.pause("go on?")
    await asyncio.to_thread(emitter.close, PATIENCE)
    await store.apply(transport.events)
    async with resume_run("w", "r", run_log=store, emitter=elsewhere) as run:
        with run.step("after"):
            pass
    await asyncio.to_thread(elsewhere.close, PATIENCE)
    await store.apply(transport.events)

    assert ["before", "after"] == [step.name for step in await store.get_steps("w", "r")]


async def test_steps_of_a_killed_process(emitter_to: EmitterMaker) -> None:
    """A step that a killed process left running is cancelled once the run's next attempt begins."""
    store = InMemoryRunLogService()
    killed, elsewhere = (emitter_to(StoreTransport(lambda: store), policy=AT_ONCE) for _ in range(2))
    run = record_run("w", run_id="r", emitter=killed).__enter__()
    run.step("left").__enter__()
    await killed.flush(PATIENCE)
    run.pause()  # the last that is heard of it, with its step
    await killed.flush(PATIENCE)
    before = await store.get_steps("w", "r")

    async with resume_run("w", "r", retry=True, run_log=store, emitter=elsewhere) as again:
        with again.step("own"):
            again.pause()
            await elsewhere.flush(PATIENCE)
            during = await store.get_steps("w", "r")
        again.resume()
    await elsewhere.flush(PATIENCE)

    assert [("left", "running", None)] == summary(before)
    assert [("left", "cancelled", None), ("own", "running", None)] == summary(during)
    assert [("left", "cancelled", None), ("own", "success", None)] == summary(await store.get_steps("w", "r"))


async def test_a_heartbeat_of_a_run_that_goes_on(emitter_to: EmitterMaker) -> None:
    """What resumes a run has a heartbeat of its own. How far the run was stays, unless it is tried again."""
    store = InMemoryRunLogService()
    transport = Watched(lambda events: any(not event.is_transition for event in events))
    emitter = emitter_to(transport, policy=AT_ONCE)
    state = a_run(workflow_id="w", id="r", status=RunStatus.PAUSED)
    await store.save_run(state.model_copy(update={"progress": RunProgress(fraction=0.5)}))

    async with resume_run("w", "r", heartbeat=timedelta(milliseconds=1), run_log=store, emitter=emitter):
        assert await asyncio.to_thread(transport.enough.wait, PATIENCE)
    async with resume_run("w", "r", retry=True, run_log=store, emitter=emitter):
        pass
    await asyncio.to_thread(emitter.close, PATIENCE)

    far = {
        (event.run.attempt, event.run.progress and event.run.progress.fraction) for event in transport.events
    }
    assert {(1, 0.5), (2, None)} == far


def test_an_emitter_of_another_kind() -> None:
    """An emitter that is not ours gets the steps with the run's transitions, as an event."""
    taken: list[object] = []

    class Takes:
        def emit(self, run: object) -> None:
            """Keep *run*."""
            taken.append(run)

    with record_run("w", emitter=Takes()) as run, run.step("load"):
        pass

    ended = taken[-1]
    assert isinstance(ended, RunEvent)
    assert ["load"] == [step.name for step in ended.steps]


def test_a_run_that_is_gone_is_not_called() -> None:
    """What nobody holds any more has no heartbeat."""

    class Owner:
        def call(self) -> None:
            """Be called."""
            raise AssertionError

    timers = Timers()
    owner = Owner()
    assert timers.set(owner.call, 1.0)
    del owner
    gc.collect()
    timers.run(2.0)

    assert timers.next() is None


def test_the_earliest_call_counts() -> None:
    """An object has one call: the earliest that it asked for, and the next one after that."""
    calls: list[float] = []

    class Owner:
        def call(self) -> None:
            """Note the call."""
            calls.append(now)

    timers, owner = Timers(), Owner()
    asked = [timers.set(owner.call, at) for at in (5.0, 3.0, 4.0)]
    for now in (2.0, 3.0, 6.0):
        timers.run(now)

    assert ([True, True, False], [3.0]) == (asked, calls)


def test_the_wire_of_progress(emitter_to: EmitterMaker) -> None:
    """Secrets in the attributes and errors of steps are replaced before they leave the process."""
    transport = ScriptedTransport()
    emitter = emitter_to(transport, policy=NEVER)
    with record_run("w", emitter=emitter) as run, run.step("call") as call:
        call.set(password="hunter2", rows=1)  # noqa: S106 - what is to be found
        call.fail("Bearer abcdefghijklmnopqrstuvwxyz0123456789")
    emitter.close(PATIENCE)

    body = transport.messages[-1].data.decode()
    (step,) = decode_event(transport.messages[-1]).steps
    assert "hunter2" not in body
    assert "abcdefghijklmnopqrstuvwxyz" not in body
    assert 1 == step.attributes["rows"]


class Hostile:
    """Raises whatever it is asked."""

    def __repr__(self) -> str:
        """Raise."""
        raise ValueError

    __str__ = __repr__

    @property  # type: ignore[misc]
    def __class__(self) -> NoReturn:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Raise."""
        raise ValueError


def test_a_heartbeat_that_raises(emitter: RunEventEmitter, caplog: pytest.LogCaptureFixture) -> None:
    """What raises when it is looked at is no heartbeat, and the block runs."""
    heartbeat: Any = Hostile()
    with record_run("w", heartbeat=heartbeat, emitter=emitter):
        pass

    assert 2 == emitter.close(PATIENCE).delivered
    assert 1 == len(logged(caplog, "run_log_heartbeat_left_out"))


def test_the_longest_heartbeat(emitter_to: EmitterMaker, caplog: pytest.LogCaptureFixture) -> None:
    """A heartbeat that is further away than a thread can wait does not stop the delivery thread."""
    transport = ScriptedTransport()
    emitter = emitter_to(transport, policy=AT_ONCE)
    with record_run("w", heartbeat=timedelta.max, emitter=emitter) as run:
        for number in range(20):
            run.progress(text=str(number))
            emitter.flush_sync(PATIENCE)
    emitter.close(PATIENCE)

    assert [] == logged(caplog, "run_log_emitter_failed")


@pytest.mark.parametrize("make", [str, Hostile])
def test_joining_what_has_no_id(make: Callable[[], Any], emitter: RunEventEmitter) -> None:
    """What cannot be joined is counted at least, and the block runs."""
    has_run: list[int] = []
    with join_run(make(), "r", emitter=emitter) as joined, joined.step("a"):
        has_run.append(1)
    report = emitter.close(PATIENCE)

    assert [1] == has_run
    assert report.delivered + report.dropped > 0


def test_an_id_that_another_object_takes() -> None:
    """What has the address of an object that has gone is called, although that one was due."""

    class Owner:
        # Else the first one is smaller than the others, since Python 3.13.
        __slots__ = ("__weakref__", "calls")

        def __init__(self) -> None:
            self.calls = 0

        def call(self) -> None:
            """Note the call."""
            self.calls += 1

    class Replaces:
        def call(self) -> None:
            """Let the next one go, and set a call of another with its address."""
            address = id(owners.pop())
            others = [Owner() for _ in range(100)]
            taken.extend(other for other in others if id(other) == address)
            for other in taken:
                timers.set(other.call, 9.0)

    timers, owners, taken = Timers(), [Owner()], list[Owner]()
    first = Replaces()
    timers.set(first.call, 1.0)
    timers.set(owners[0].call, 1.0)
    timers.run(2.0)
    timers.run(9.0)

    assert all(owner.calls for owner in taken)
    assert taken, "CPython gives the address that was freed last"


def test_a_run_that_is_gone_takes_no_place() -> None:
    """The call of what nobody holds any more is forgotten before it is due."""

    class Owner:
        def call(self) -> None:
            """Be called."""
            raise AssertionError

    timers = Timers()
    owner = Owner()
    timers.set(owner.call, 3_600.0)
    del owner
    gc.collect()

    assert timers.next() is None


@pytest.mark.parametrize("name", ["x" * 200, "Загрузка всех файлов месяца"])
def test_a_long_name_that_is_tried_again(
    name: str, emitter: RunEventEmitter, transport: ScriptedTransport
) -> None:
    """A step that failed is tried again by its name, although that is cut."""
    with record_run("w", emitter=emitter) as run:
        for _ in range(3):
            with run.step(name) as tried:
                tried.fail()
    emitter.close(PATIENCE)

    assert [3] == [step.attempt for step in steps_in(transport)]


def test_an_attribute_that_is_set_while_the_step_ends(
    emitter: RunEventEmitter, transport: ScriptedTransport
) -> None:
    """What is set meanwhile undoes no end, and is kept."""

    class Ends(list[int]):
        """Ends the step while it is copied, as another thread or a signal's handler may."""

        def __iter__(self) -> Any:
            """End the step once."""
            if not is_left:
                is_left.append(True)
                scope.__exit__(None, None, None)
            return super().__iter__()

    is_left: list[bool] = []
    with record_run("w", emitter=emitter) as run:
        scope = run.step("load")
        handle = scope.__enter__()
        handle.set(rows=Ends([1, 2]))
    emitter.close(PATIENCE)

    assert [True] == is_left
    assert [("load", "success", None)] == summary(steps_in(transport))
    assert [{"rows": [1, 2]}] == [step.attributes for step in steps_in(transport)]


def test_a_generator_that_outlives_the_step_around_it(
    emitter: RunEventEmitter, transport: ScriptedTransport
) -> None:
    """A step that has ended is around nothing, also if a generator's step within it ends later."""

    def parts() -> Iterator[None]:
        with run.step("part"):
            yield

    with record_run("w", emitter=emitter) as run:
        with run.step("outer"), run.step("inner"):
            generator = parts()
            next(generator)
        list(generator)
        assert current_step() is None
        with run.step("after"):
            pass
    emitter.close(PATIENCE)

    assert ("after", "success", None) in summary(steps_in(transport))


async def test_steps_that_end_while_the_run_is_paused(emitter_to: EmitterMaker) -> None:
    """A step around a pause, and one after it, are told as ended, although the block leaves a paused run."""
    transport = ScriptedTransport()
    emitter = emitter_to(transport, policy=NEVER)
    with record_run("w", run_id="r", trigger_data={"a": 1}, emitter=emitter) as run:
        with run.step("ask"):
            run.pause("go on?")
        with run.step("tidy"):
            pass
    await asyncio.to_thread(emitter.close, PATIENCE)

    for events in (transport.events, transport.events[::-1]):
        store = InMemoryRunLogService()
        for event in events:
            await store.apply([event])
        found = await store.get_run("w", "r")
        assert found is not None
        assert (RunStatus.PAUSED, {"a": 1}) == (found.status, found.trigger_data)
        assert ["running", "paused"] == [line.status.value for line in await store.get_history("w", "r")]
        steps = await store.get_steps("w", "r")
        assert [("ask", "success", None), ("tidy", "success", None)] == summary(steps)


async def test_a_step_that_ends_after_its_run(emitter_to: EmitterMaker) -> None:
    """A step that is left after the run's block is told as ended, and the run stays as it ended."""
    transport = Watched(lambda events: any(step.ended_at for event in events for step in event.steps))
    emitter = emitter_to(transport, policy=AT_ONCE)
    with record_run("w", run_id="r", emitter=emitter) as run:
        late = run.step("late")
        late.__enter__()
    emitter.flush_sync(PATIENCE)
    late.__exit__(None, None, None)
    assert transport.enough.wait(PATIENCE)
    await asyncio.to_thread(emitter.close, PATIENCE)

    after = fold(None, transport.events).after
    assert (RunStatus.SUCCESS, [("late", "success", None)]) == (after.status, summary(after.steps))


def test_two_times_at_least_an_interval_apart() -> None:
    """What changes while something is said waits for the next time."""
    said: list[float] = []

    class Clock:
        """Stands for an emitter whose time stands still."""

        progress_interval = 2.0
        is_behind = False
        now = 100.0
        calls: ClassVar[list[float]] = []

        def monotonic(self) -> float:
            """Return the time."""
            return self.now

        def call_at(self, at: float, method: Callable[[], None]) -> None:
            """Note the call, and make it if it is due."""
            self.calls.append(at)
            if at <= self.now:
                method()

    clock: Any = Clock()

    def say(*, is_due: bool) -> bool:
        assert is_due
        said.append(clock.now)
        if len(said) == 1:
            raise MemoryError
        return True

    pulse = Pulse(clock, say, heartbeat=30.0)
    pulse.tell()
    assert [100.0] == said
    assert 130.0 in clock.calls, "a heartbeat that failed is followed by others"
    pulse.tell()
    pulse._called()  # pyright: ignore[reportPrivateUsage] - a call that was due before
    assert [100.0] == said
    clock.now = 102.0
    pulse._called()  # pyright: ignore[reportPrivateUsage] - as its thread does
    assert [100.0, 102.0] == said


@pytest.mark.process
def test_a_fork_within_a_step() -> None:
    """A child tells its steps and its progress; it does not undo steps or the end of the parent's run."""
    told = run_script("""
        import json, os, sys
        from run_log.core import decode_event
        from run_log.core.law import fold
        from run_log.producer import RunEventEmitter, record_run
        from run_log.producer._transport import DeliveryPolicy

        read, write = os.pipe()
        ended, end = os.pipe()

        class Keeps:
            def __init__(self):
                self.events = []
            def publish(self, messages):
                self.events += map(decode_event, messages)
                if os.getpid() != parent:
                    for event in self.events:
                        if any(step.name == "late" and step.ended_at for step in event.steps):
                            os.write(write, event.model_dump_json().encode() + bytes([10]))
                            os._exit(0)
            def close(self):
                pass

        parent = os.getpid()
        transport = Keeps()
        emitter = RunEventEmitter(transport, policy=DeliveryPolicy(linger=0, progress=0.01))
        with record_run("w", run_id="r", emitter=emitter) as run:
            with run.step("both"):
                child = os.fork()
                if not child:
                    os.close(end)  # so that it ends if its parent does
                    os.read(ended, 1)
                    with run.step("late"):
                        pass
                    os.read(ended, 1)
        emitter.flush_sync(30)
        os.write(end, b"x")
        os.close(write)
        from run_log.core import RunEvent
        own = transport.events
        with open(read) as lines:
            theirs = [RunEvent.model_validate_json(line) for line in lines]
        os.waitpid(child, 0)
        after = fold(None, [*own, *theirs]).after
        steps = [(step.name, step.status.value) for step in sorted(after.steps, key=lambda step: step.name)]
        print(after.status.value, steps)
    """)
    assert "success [('both', 'success'), ('late', 'success')]" == told.strip()


@pytest.mark.process
def test_a_fork_while_progress_is_due() -> None:
    """What a child says of progress is told, although something was due when it was forked."""
    told = run_script("""
        import os
        from run_log.core import decode_event
        from run_log.producer import RunEventEmitter, record_run
        from run_log.producer._transport import DeliveryPolicy

        class Tells:
            def publish(self, messages):
                for event in map(decode_event, messages):
                    if event.run.progress and event.run.progress.text == "child":
                        os.write(1, b"told")
                        os._exit(0)
            def close(self):
                pass

        emitter = RunEventEmitter(Tells(), policy=DeliveryPolicy(linger=0, progress=2.0))
        with record_run("w", run_id="r", emitter=emitter) as run:
            run.progress(text="parent")
            child = os.fork()
            if not child:
                run.progress(text="child")
                read, write = os.pipe()
                import select
                select.select([read], [], [], 20)
                os._exit(1)
            os.waitpid(child, 0)
    """)
    assert "told" == told


def test_what_joins_a_run_tells_before_it_leaves(emitter_to: EmitterMaker) -> None:
    """A step of a joined run is told while it is under way, also if nothing was emitted before."""
    transport = Watched(bool)
    emitter = emitter_to(transport, policy=AT_ONCE)
    with join_run("w", "r", emitter=emitter) as joined, joined.step("long"):
        assert transport.enough.wait(PATIENCE)


def test_heartbeats_do_not_fill_the_buffer(emitter_to: EmitterMaker) -> None:
    """While the broker is away, a run does not say again and again that it is alive; afterwards it does."""
    transport = Watched(lambda events: not events[-1].is_transition)
    away = ScriptedTransport([TransportUnavailableError("away")] * 100)

    class Returns:
        def publish(self, messages: Sequence[Message]) -> None:
            """Raise what is left of the errors, then deliver."""
            away.publish(messages)
            transport.publish(messages)

        def close(self) -> None:
            """Do nothing."""

    emitter = emitter_to(Returns(), policy=AT_ONCE)
    with record_run("w", heartbeat=timedelta(milliseconds=1), emitter=emitter):
        assert transport.enough.wait(PATIENCE)
    emitter.close(PATIENCE)

    # One heartbeat may have been due before the first call failed, and one since.
    assert sum(map(len, transport.batches[:2])) <= 4
    assert 0 == emitter.stats.dropped


def test_a_step_that_cannot_begin() -> None:
    """Where there is no memory for a step its block runs, also if it is left twice; there is no step."""

    def tick() -> int:
        raise MemoryError

    book = StepBook(tick=tick, now=utc_now, told=lambda: None)
    scope = StepScope(book, "load", None)
    with scope as load:
        load.set(rows=1)
        assert current_step() is load
    scope.__exit__(None, None, None)

    assert ((), None) == (book.all(0), current_step())


def test_many_steps_under_way_are_not_looked_through() -> None:
    """What a step costs does not grow with the steps that are under way, and the newest ones stay."""
    looks: list[int] = []

    class Looks(dict[str, Step]):
        def values(self) -> Any:
            """Count it."""
            looks.append(len(self))
            return super().values()

    ticks = iter(range(10_000))
    book = StepBook(tick=lambda: next(ticks), now=utc_now, told=lambda: None)
    book._steps = Looks()  # pyright: ignore[reportPrivateUsage] - there is no other way to count
    scopes = [StepScope(book, f"step {number}", None) for number in range(2 * MAX_STEPS)]
    for scope in scopes:
        scope.__enter__()
    for scope in reversed(scopes):
        scope.__exit__(None, None, None)

    assert [] == looks
    assert [f"step {number}" for number in range(MAX_STEPS)] == [step.name for step in book.all(0)]


def test_a_decorator_without_parentheses() -> None:
    """``@step`` on its own is refused at once, and not when the function is called."""
    bare: Any = step
    with pytest.raises(InvalidArgumentError, match=r"@step\(\)"):
        bare(test_a_decorator_without_parentheses)
