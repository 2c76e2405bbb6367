from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any

import click
import pytest
import typer
from opentelemetry.trace import NonRecordingSpan, SpanContext, use_span

from run_log.core import (
    InvalidArgumentError,
    PauseRequest,
    RunRef,
    RunStatus,
    Settings,
    TransportUnavailableError,
    TriggerType,
)
from run_log.core.fields import MAX_ERROR_TYPE_BYTES, MAX_LABELS
from run_log.core.ids import bounded_id
from run_log.producer import EmitterStats, FlushReport, RunEventEmitter, RunHandle, current_run, record_run
from run_log.producer._recorder import RunRecorder
from run_log.producer._transport import DeliveryPolicy
from run_log.testing import a_run

from .conftest import EmitterMaker
from .transports import PATIENCE, ScriptedTransport, States, logged


def test_a_run_that_ends_well(states: States) -> None:
    """A block that is left normally is a run that was running and ended in success."""
    begun = time.perf_counter()
    with record_run("w", trigger_data={"a": 1}, emitter=states) as run:
        assert RunStatus.RUNNING is run.status
        run.set_result({"b": 2})

    began, ended = states.runs
    assert (began.status, began.result, began.completed_at) == (RunStatus.RUNNING, {}, None)
    assert (ended.status, ended.result, ended.error) == (RunStatus.SUCCESS, {"b": 2}, None)
    assert (ended.workflow_id, ended.trigger_data, ended.trigger_type) == ("w", {"a": 1}, TriggerType.MANUAL)
    assert began.key == ended.key == (run.workflow_id, run.run_id)
    assert began.started_at == ended.started_at
    assert ended.completed_at is not None
    assert ended.completed_at >= ended.started_at
    assert 0 <= ended.duration_ms <= 1_000 * (time.perf_counter() - begun)


def test_what_a_run_of_its_own_states(states: States) -> None:
    """A recorded run is its first attempt, and its duration is stated in milliseconds."""
    state = {"workflow_id": "w", "id": "r", "trigger_type": "manual", "started_at": a_run().started_at}
    handle = RunHandle(state, emitter=states, elapsed=lambda: 1.5)

    with RunRecorder(lambda: handle):
        pass

    ended = states.runs[-1]
    assert (1, 1, 1_500) == (handle.attempt, ended.attempt, ended.duration_ms)
    assert {} == ended.trigger_data


async def test_async_blocks_do_the_same(states: States) -> None:
    """``async with`` records as ``with`` does."""
    async with record_run("w", emitter=states) as run:
        run.set_result({"b": 2})

    assert [(s.status, s.trigger_data, s.result) for s in states.runs] == [
        (RunStatus.RUNNING, {}, {}),
        (RunStatus.SUCCESS, {}, {"b": 2}),
    ]


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (KeyError(), "KeyError"),
        (KeyboardInterrupt(), "interrupted: KeyboardInterrupt"),
        (SystemExit(1), "exited: SystemExit: 1"),
        (ValueError("lone \ud800"), "ValueError: lone \\ud800"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exception_fails_the_run_and_goes_on(error: BaseException, recorded: str, states: States) -> None:
    """Whatever exception leaves the block is recorded with type, text and place, and propagates itself."""
    with pytest.raises(type(error)) as caught, record_run("w", emitter=states):
        raise error

    assert caught.value is error
    assert states.statuses == ["running", "failed"]
    what, where = (states.runs[-1].error or "").split("\n\n", 1)
    assert recorded == what
    assert where.startswith("Traceback")
    assert "raise error" in where
    assert states.runs[-1].completed_at is not None


async def test_a_cancelled_task_cancels_the_run(states: States) -> None:
    """A task that is cancelled within its block has a cancelled run, which says where, and is cancelled."""
    entered = asyncio.Event()

    async def work() -> None:
        async with record_run("w", emitter=states):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert states.statuses == ["running", "cancelled"]
    what, where = (states.runs[-1].error or "").split("\n\n", 1)
    assert what == "cancelled: asyncio.exceptions.CancelledError"
    assert "asyncio.Event().wait()" in where
    assert states.runs[-1].completed_at is not None


@pytest.mark.parametrize("name", ["skip", "fail", "cancel"])
def test_ended_by_hand(name: str, states: States) -> None:
    """Skip, fail and cancel end the run so when the block is left, and not before."""
    with record_run("w", emitter=states) as run:
        getattr(run, name)("because")
        before = states.statuses

    assert before == ["running"]
    end = {"skip": "skipped", "fail": "failed", "cancel": "cancelled"}[name]
    assert ["running", end] == states.statuses
    assert states.runs[-1].error == "because"


def _fall(depth: int) -> None:
    if depth:
        _fall(depth - 1)
    else:
        raise ValueError("x" * 100_000)


def test_a_traceback_is_bounded(states: States) -> None:
    """Of a deep fall with a long message the beginning of the message and the innermost frames are kept."""
    with pytest.raises(ValueError, match="x"), record_run("w", emitter=states):
        _fall(500)

    error = states.runs[-1].error or ""
    assert error.startswith("ValueError: xxx")
    assert len(error) < 32_000
    assert "[...]" in error


def test_the_innermost_frames_are_kept(states: States) -> None:
    """A traceback names the place where it happened, however deep that is."""

    def bottom() -> None:
        raise ValueError("here")

    def deep(depth: int) -> None:
        deep(depth - 1) if depth else bottom()

    with pytest.raises(ValueError, match="here"), record_run("w", emitter=states):
        deep(300)

    assert "in bottom" in (states.runs[-1].error or "")


def test_a_run_left_paused_stays_paused(states: States) -> None:
    """A block that is left while the run waits for a human states no end."""
    deadline = datetime(2027, 1, 1, tzinfo=UTC)

    with record_run("w", emitter=states) as run:
        run.pause("pay?", assignee="ann", deadline=deadline)

    assert states.statuses == ["running", "paused"]
    assert PauseRequest(reason="pay?", assignee="ann", deadline=deadline) == states.runs[-1].pause
    assert states.runs[-1].completed_at is None


def test_a_pause_offers_choices_and_a_form(states: States, caplog: pytest.LogCaptureFixture) -> None:
    """A pause states what can be answered; what cannot be offered is left out of it, and logged once."""
    caplog.set_level(logging.WARNING)
    form = {"type": "object", "required": ["amount"]}
    with record_run("w", run_id="r", emitter=states) as run:
        run.pause("pay?", choices=["pay", "wait"], form=form, default_choice="wait")
        run.pause("pay?", choices=("pay",), form={"type": "nothing"}, default_choice="wait")
        run.resume()

    first, second = (one.pause for one in states.runs if one.status is RunStatus.PAUSED)
    assert PauseRequest(reason="pay?", choices=("pay", "wait"), form=form, default_choice="wait") == first
    assert PauseRequest(reason="pay?", choices=("pay",)) == second
    losses = [vars(record) for record in caplog.records]
    assert [("w", "r", "form"), ("w", "r", "default_choice")] == [
        (loss["workflow_id"], loss["run_id"], loss["field"]) for loss in losses
    ]


def test_pause_and_resume_inside(states: States) -> None:
    """A run that is resumed ends as usual, and tells who answered."""
    with record_run("w", emitter=states) as run:
        run.pause("pay?")
        run.resume(answered_by="ann")

    assert states.statuses == ["running", "paused", "running", "success"]
    assert PauseRequest(reason="pay?", answered_by="ann") == states.runs[-1].pause


@pytest.mark.parametrize(
    ("answer", "kept", "left_out"),
    [
        ({"choice": "pay", "values": {"amount": 7}}, ("pay", {"amount": 7}), []),
        ({"choice": 2}, ("2", None), []),
        ({}, (None, None), []),
        ({"choice": "no", "values": {"amount": "many"}}, (None, None), ["choice", "values"]),
        ({"choice": ["pay"], "values": {"amount": 7}}, (None, {"amount": 7}), ["choice"]),
        ({"choice": "pay", "values": [7]}, ("pay", None), ["values"]),
    ],
    ids=repr,
)
def test_an_answer_inside(
    answer: dict[str, Any],
    kept: tuple[object, ...],
    left_out: list[str],
    states: States,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run that is resumed tells the answer; what the pause does not ask for is left out, and logged."""
    form = {"properties": {"amount": {"type": "number"}}, "required": ["amount"]}
    choices: Any = ["pay", 2]
    with record_run("w", run_id="r", emitter=states) as run:
        run.pause("pay?", choices=choices, form=form)
        run.resume(answered_by="ann", comment="as agreed", **answer)

    for state in states.runs[-2:]:
        pause = state.pause
        assert pause is not None
        assert ("ann", "as agreed", *kept) == (pause.answered_by, pause.comment, pause.choice, pause.values)
    losses = logged(caplog, "run_log_pause_left_out")
    assert [("w", "r", field) for field in left_out] == [
        (loss["workflow_id"], loss["run_id"], loss["field"]) for loss in losses
    ]


def test_an_answer_to_what_is_no_run(emitter_to: EmitterMaker) -> None:
    """A run that has no id takes an answer, too: each of its states is counted as dropped."""
    emitter = emitter_to(ScriptedTransport())
    with record_run("", emitter=emitter) as run:
        run.pause("pay?", choices=["pay"])
        run.resume(choice="pay")

    assert 4 == emitter.close(PATIENCE).dropped


def test_an_answer_to_a_later_pause(states: States, caplog: pytest.LogCaptureFixture) -> None:
    """A pause that offers nothing takes any values and no choice, whatever the one before was answered."""
    with record_run("w", emitter=states) as run:
        run.pause("pay?", choices=["pay"])
        run.resume(answered_by="ann", choice="pay")
        run.pause("sure?")
        run.resume(choice="pay", values={"any": [1]})

    assert PauseRequest(reason="sure?", values={"any": [1]}) == states.runs[-1].pause
    assert ["choice"] == [loss["field"] for loss in logged(caplog, "run_log_pause_left_out")]


@pytest.mark.parametrize(("name", "status"), [("skip", "skipped"), ("fail", "failed")])
def test_a_paused_run_can_be_ended(name: str, status: str, states: States) -> None:
    """Skip and fail end a run that is paused, too."""
    with record_run("w", emitter=states) as run:
        run.pause("pay?")
        getattr(run, name)("no")

    assert ["running", "paused", status] == states.statuses


def test_an_exception_beats_what_was_said_before(states: States) -> None:
    """A run that is skipped, then raises, has failed."""

    def work() -> None:
        with record_run("w", emitter=states) as run:
            run.skip("nothing to do")
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        work()

    assert states.statuses[-1] == "failed"
    assert (states.runs[-1].error or "").startswith("ValueError: bad\n")


def test_runs_nest(states: States) -> None:
    """A run within a run is a run of its own, and the innermost one is current."""
    with record_run("outer", emitter=states) as outer:
        with record_run("inner", emitter=states) as inner:
            assert inner is current_run()
        assert outer is current_run()

    assert current_run() is None
    assert outer.run_id != inner.run_id
    assert {"outer": None, "inner": outer.ref} == {run.workflow_id: run.parent for run in states.runs}
    assert [(run.workflow_id, run.status) for run in states.runs] == [
        ("outer", "running"),
        ("inner", "running"),
        ("inner", "success"),
        ("outer", "success"),
    ]


@pytest.mark.parametrize(
    "parent",
    [RunRef("v", "p"), ("v", "p"), {"workflow_id": "v", "run_id": "p"}, a_run(workflow_id="v", id="p")],
    ids=lambda parent: type(parent).__name__,
)
def test_a_parent_that_is_given(parent: Any, states: States) -> None:
    """A run of another process is a parent by its ids, also within another run."""
    with record_run("outer", emitter=states), record_run("w", parent=parent, emitter=states):
        pass

    assert {RunRef("v", "p")} == {run.parent for run in states.runs if run.workflow_id == "w"}


@pytest.mark.parametrize("parent", ["p", ("v",), ("v", ""), {"workflow_id": "v"}, 7])
def test_what_is_no_parent_costs_no_run(
    parent: Any, caplog: pytest.LogCaptureFixture, states: States
) -> None:
    """What names no run is left out of every state, and logged once."""
    with record_run("w", run_id="r", parent=parent, emitter=states):
        pass

    assert [None, None] == [run.parent for run in states.runs]
    (record,) = logged(caplog, "run_log_parent_left_out")
    assert ("w", "r") == (record["workflow_id"], record["run_id"])


def test_labels(caplog: pytest.LogCaptureFixture, states: States) -> None:
    """Every state has the labels of the run, as texts. What cannot be one is left out, and logged once."""
    labels = {"team": "a", "attempts": 3, "stage": RunStatus.PAUSED, "Bad Key": "x", "long": "x" * 129}
    with record_run("w", run_id="r", labels=labels, emitter=states):
        labels["later"] = "b"

    assert [{"team": "a", "attempts": "3", "stage": "paused"}] * 2 == [run.labels for run in states.runs]
    (record,) = logged(caplog, "run_log_labels_left_out")
    assert ("w", "r", ["Bad Key", "long"]) == (record["workflow_id"], record["run_id"], record["labels"])


def test_more_labels_than_a_run_has(states: States) -> None:
    """Of too many labels the same ones are kept, whatever their order."""
    names = [f"k{number:02}" for number in range(MAX_LABELS + 1)]
    for each in (names, names[::-1]):
        with record_run("w", labels=dict.fromkeys(each, "v"), emitter=states):
            pass

    assert {tuple(names[:-1])} == {tuple(sorted(run.labels)) for run in states.runs}


def test_the_trace_in_which_a_run_began(states: States) -> None:
    """A run has the trace of the span around it, also once that has ended, and none where there is none."""
    context = SpanContext(0xABC, 0xDEF, is_remote=False)
    with use_span(NonRecordingSpan(context)):
        recorder = record_run("w", emitter=states)
        recorder.__enter__()
    recorder.__exit__(None, None, None)
    with record_run("v", emitter=states):
        pass

    assert [f"{0xABC:032x}"] * 2 + [None] * 2 == [run.trace_id for run in states.runs]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("no"), "ValueError"),
        (json.JSONDecodeError("no", "x", 0), "json.decoder.JSONDecodeError"),
        (type("x" * 300, (Exception,), {"__module__": "m"})(), None),
    ],
    ids=["built in", "of a module", "long"],
)
def test_the_type_of_an_error(error: Exception, name: str | None, states: States) -> None:
    """A failed run says by which exception: raised or handled, and none where it failed by hand."""
    with pytest.raises(type(error)), record_run("w", emitter=states):
        raise error
    with record_run("w", emitter=states) as run:
        run.fail(error)
        run.fail(error)
    with record_run("w", emitter=states) as run:
        run.fail(error)
        run.fail("by hand")
    with record_run("w", emitter=states) as run:
        run.fail(error)
        run.cancel("by hand")

    began, raised, _, handled, _, by_hand, _, cancelled = (run.error_type for run in states.runs)
    assert (None, raised, None, None) == (began, handled, by_hand, cancelled)
    assert raised is not None
    assert name is None or raised == name
    assert len(raised.encode()) <= MAX_ERROR_TYPE_BYTES


async def test_what_a_decorated_function_returns(states: States) -> None:
    """With ``result=True`` a run has what its function returned, in place of a result that was set."""

    @record_run("w", result=True, emitter=states)
    def work(returned: object) -> object:
        handle = current_run()
        assert handle is not None
        handle.set_result({"set": 1})
        return returned

    @record_run("w", result=True, emitter=states)
    async def work_async(returned: object) -> object:
        return returned

    calls = [work({"a": 1}), work([1, 2]), work(None), await work_async({"b": 2})]

    assert [{"a": 1}, [1, 2], None, {"b": 2}] == calls
    assert [{"a": 1}, {"value": [1, 2]}, {"set": 1}, {"b": 2}] == [run.result for run in states.runs[1::2]]


def test_nothing_after_the_end(caplog: pytest.LogCaptureFixture, states: States) -> None:
    """What a handle is told after its run has ended is logged and not stated."""
    with record_run("w", run_id="r", emitter=states) as run:
        pass

    run.pause("too late")
    run.resume()

    assert states.statuses == ["running", "success"]
    assert run.status is RunStatus.SUCCESS
    records = logged(caplog, "run_log_after_end")
    assert [(record["run_id"], record["status"]) for record in records] == [("r", "paused"), ("r", "running")]


def test_the_callers_run_id_is_taken(states: States) -> None:
    """A given run id is the run's; without one each run has another."""
    for run_id in ("mine", None, None):
        with record_run("w", run_id=run_id, emitter=states):
            pass

    assert states.runs[0].id == "mine"
    assert len({run.id for run in states.runs}) == 3


@pytest.mark.parametrize("trigger_type", ["webhook", TriggerType.WEBHOOK])
def test_a_trigger_type_may_be_text(trigger_type: TriggerType | str, states: States) -> None:
    """A trigger type is given as the enum's member or as its value."""
    with record_run("w", trigger_type=trigger_type, emitter=states):
        pass

    assert [run.trigger_type for run in states.runs] == [TriggerType.WEBHOOK] * 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"workflow_id": ""},
        {"workflow_id": None},
        {"workflow_id": ["w"]},
        {"workflow_id": "w", "trigger_type": None},
        {"workflow_id": "w", "run_id": ""},
        {"workflow_id": "w", "run_id": ["r"]},
    ],
    ids=str,
)
def test_a_run_that_cannot_be_recorded_runs_on(
    arguments: dict[str, Any], emitter: RunEventEmitter, caplog: pytest.LogCaptureFixture
) -> None:
    """Arguments that make no run never raise into the workflow; its states are counted as dropped."""
    done: list[object] = []

    with record_run(**arguments, trigger_data={"a": 1}, emitter=emitter) as run:
        done.append(run.workflow_id)

    assert done == [arguments["workflow_id"]]
    assert not logged(caplog, "run_log_value_not_recorded")
    assert EmitterStats(emitted=2, delivered=0, pending=0, dropped=2) == emitter.stats


def _naive_deadline(run: RunHandle) -> None:
    run.pause("x", deadline=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake


def _deadline_of_the_wrong_type(run: RunHandle) -> None:
    run.pause("x", deadline="soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _mistaken(mistake: Callable[[RunHandle], None], emitter: States) -> None:
    with record_run("w", emitter=emitter) as run:
        run.set_result({"a": 1})
        mistake(run)
        raise ValueError("later")


@pytest.mark.parametrize("mistake", [_naive_deadline, _deadline_of_the_wrong_type])
def test_a_value_set_wrongly_does_not_hide_how_the_run_ends(
    mistake: Callable[[RunHandle], None], caplog: pytest.LogCaptureFixture, states: States
) -> None:
    """What a workflow sets wrongly is left out and logged; the run's states are told all the same."""
    with pytest.raises(ValueError, match="later"):
        _mistaken(mistake, states)

    assert ["running", "paused", "failed"] == states.statuses
    assert PauseRequest(reason="x") == states.runs[1].pause
    assert [{}, {"a": 1}, {"a": 1}] == [run.result for run in states.runs]
    assert (states.runs[-1].error or "").startswith("ValueError: later\n")
    assert ["pause"] == [line["field"] for line in logged(caplog, "run_log_value_not_recorded")]


def test_a_value_set_wrongly_is_left_out_of_what_is_published(
    emitter: RunEventEmitter, transport: ScriptedTransport
) -> None:
    """A state with a value that cannot be recorded is published without it."""
    with record_run("w", emitter=emitter) as run:
        _naive_deadline(run)
    emitter.close(PATIENCE)

    assert [None, PauseRequest(reason="x")] == [event.run.pause for event in transport.events]


def test_a_result_that_is_filled_later(states: States) -> None:
    """Each state has what was set as it is then, though an earlier state had less of it."""
    result = {"a": 1}
    with record_run("w", emitter=states) as run:
        run.set_result(result)
        run.pause()
        result["b"] = 2

        run.resume()

    assert [{}, {"a": 1}, {"a": 1, "b": 2}] == [state.result for state in states.runs[:3]]


def test_ids_of_any_length_are_told(
    caplog: pytest.LogCaptureFixture, transport: ScriptedTransport, emitter: RunEventEmitter
) -> None:
    """A run with longer ids than are taken is told under those that stand for them, and the log says so."""
    name, other = "\U0001f600" * 50_000, "\U0001f600" * 49_999

    for run_id in (name, other):
        with record_run(name, run_id=run_id, emitter=emitter) as run:
            run.pause("pay?", assignee=name)
            run.resume(answered_by=run_id)
            assert (bounded_id(name), bounded_id(run_id)) == (run.workflow_id, run.run_id)
    emitter.close(PATIENCE)

    assert [(bounded_id(name), bounded_id(run_id)) for run_id in (name, other) for _ in range(4)] == [
        event.key for event in transport.events
    ]
    paused = [event.run.pause for event in transport.events if event.status is RunStatus.PAUSED]
    assert [bounded_id(name)] * 2 == [pause.assignee for pause in paused if pause]
    assert {"workflow_id", "run_id"} == {one["field"] for one in logged(caplog, "run_log_id_shortened")}


def test_a_naive_deadline_does_not_hide_the_pause(states: States) -> None:
    """A pause whose deadline cannot be used keeps its reason and its assignee."""
    with record_run("w", emitter=states) as run:
        run.pause("pay?", assignee="mei", deadline=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake

    assert PauseRequest(reason="pay?", assignee="mei") == states.runs[-1].pause


def test_a_handled_exception_fails_the_run(states: States) -> None:
    """A workflow that has handled an exception can fail its run with it."""
    with record_run("w", emitter=states) as run:
        run.fail(ValueError("no"))

    assert (RunStatus.FAILED, "ValueError: no") == (states.runs[-1].status, states.runs[-1].error)


def test_reasons_are_optional(states: States) -> None:
    """Pausing, skipping and failing need no words."""
    with record_run("w", emitter=states) as run:
        run.pause()
    with record_run("w", emitter=states) as run:
        run.skip()
    with record_run("w", emitter=states) as run:
        run.fail()

    assert ["running", "paused", "running", "skipped", "running", "failed"] == states.statuses


def test_nothing_after_a_block_left_paused(states: States) -> None:
    """A handle whose block was left paused states nothing more: another block goes on with the run."""
    with record_run("w", emitter=states) as run:
        run.pause("pay?")

    run.resume()

    assert states.statuses == ["running", "paused"]


def test_runs_side_by_side(states: States) -> None:
    """Runs of many threads at once are told apart, and each knows its own handle."""

    def work(number: int) -> bool:
        with record_run("w", run_id=str(number), emitter=states) as run:
            run.set_result({"number": number})
            return current_run() is run

    with ThreadPoolExecutor(16) as pool:
        own = list(pool.map(work, range(64)))

    assert own == [True] * 64
    ends = {run.id: run.result for run in states.runs if run.status is RunStatus.SUCCESS}
    assert {str(number): {"number": number} for number in range(64)} == ends
    assert len(states.runs) == 128


async def test_tasks_side_by_side(states: States) -> None:
    """Runs of tasks that interleave are told apart, and each task knows its own handle."""

    async def work(number: int) -> bool:
        async with record_run("w", run_id=str(number), emitter=states) as run:
            await asyncio.sleep(0)
            return current_run() is run

    own = await asyncio.gather(*(work(number) for number in range(20)))

    assert own == [True] * 20
    assert ["running"] * 20 + ["success"] * 20 == states.statuses


def test_a_decorated_function(states: States) -> None:
    """Each call of a decorated function is a run of its own, and the function is called as before."""

    @record_run("w", trigger_type="scheduled", emitter=states)
    def double(number: int, *, plus: int = 0) -> int:
        """Return twice the number."""
        handle = current_run()
        assert handle is not None
        handle.set_result({"number": number})
        return 2 * number + plus

    answers = [double(2), double(3, plus=1)]

    assert answers == [4, 7]
    assert (double.__name__, double.__doc__) == ("double", "Return twice the number.")
    assert states.statuses == ["running", "success"] * 2
    assert [run.result for run in states.runs[1::2]] == [{"number": 2}, {"number": 3}]
    assert len({run.id for run in states.runs}) == 2
    assert {run.trigger_type for run in states.runs} == {TriggerType.SCHEDULED}


async def test_a_decorated_coroutine_function(states: States) -> None:
    """Each call of a decorated coroutine function is a run that ends when its work does."""

    @record_run("w", emitter=states)
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        if number == 2:
            raise ValueError("two")
        return number

    one, two = await asyncio.gather(work(1), work(2), return_exceptions=True)

    assert one == 1
    assert isinstance(two, ValueError)
    assert sorted(states.statuses) == ["failed", "running", "running", "success"]


def test_a_decorated_function_that_calls_itself(states: States) -> None:
    """A decorated function may call itself: each call is a run, ended in its turn."""

    @record_run("w", emitter=states)
    def down(depth: int) -> None:
        if depth:
            down(depth - 1)

    down(2)

    assert states.statuses == ["running"] * 3 + ["success"] * 3
    assert [run.id for run in states.runs[:3]] == [run.id for run in reversed(states.runs[3:])]


def test_a_generator_function_is_refused() -> None:
    """A generator function cannot be decorated, and the error says what to do instead."""

    def numbers() -> Iterator[int]:
        yield 1

    async def letters() -> AsyncIterator[str]:
        yield "a"

    for name, function in {"numbers": numbers, "letters": letters}.items():
        with pytest.raises(InvalidArgumentError, match=f"{name} is a generator function.* inside of it"):
            record_run("w")(function)


def test_a_block_left_in_another_context(states: States) -> None:
    """A block that is entered in one context and left in another, as a fixture may be, ends its run."""
    recorder = record_run("w", emitter=states)

    copy_context().run(recorder.__enter__)
    recorder.__exit__(None, None, None)

    assert states.statuses == ["running", "success"]


@pytest.mark.parametrize(
    ("environment", "setting", "seconds"),
    [
        ({}, None, 0),
        ({"K_SERVICE": "web"}, None, 1),
        ({"CLOUD_RUN_JOB": "nightly"}, None, 0),
        ({"K_SERVICE": "web"}, 0.25, 0.25),
        ({"K_SERVICE": "web"}, 0, 0),
        ({}, 0.5, 0.5),
    ],
    ids=str,
)
def test_where_the_end_of_a_run_waits(
    environment: dict[str, str],
    setting: float | None,
    seconds: float,
    emitter_to: EmitterMaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of a run waits for delivery where the CPU may stop after a response; a setting overrides."""
    for name in ("K_SERVICE", "CLOUD_RUN_JOB"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    emitter = emitter_to(ScriptedTransport(), policy=DeliveryPolicy(end_flush=setting))

    assert seconds == sum(emitter._end_waits())  # pyright: ignore[reportPrivateUsage] - no test waits so long


def test_the_setting_reaches_the_emitter() -> None:
    """RUN_LOG_END_FLUSH_SECONDS is how long the end of a run waits."""
    emitter = RunEventEmitter.from_settings(Settings(end_flush_seconds=0.75), ScriptedTransport())

    assert sum(emitter._end_waits()) == 0.75  # pyright: ignore[reportPrivateUsage] - likewise


def test_the_end_of_a_run_is_delivered(emitter_to: EmitterMaker) -> None:
    """Where the end waits, both states are delivered when the block is left."""
    emitter = emitter_to(ScriptedTransport(), policy=DeliveryPolicy(end_flush=PATIENCE))

    with record_run("w", emitter=emitter):
        pass

    assert EmitterStats(emitted=2, delivered=2, pending=0, dropped=0) == emitter.stats


async def test_the_end_of_a_run_is_delivered_while_others_work(emitter_to: EmitterMaker) -> None:
    """In async code only the run's own task waits for delivery."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport, policy=DeliveryPolicy(end_flush=PATIENCE))

    async def work() -> None:
        async with record_run("w", emitter=emitter):
            pass

    task = asyncio.create_task(work())
    await asyncio.to_thread(transport.entered.wait, PATIENCE)
    waiting = not task.done()
    transport.let_go()
    await task

    assert waiting
    assert EmitterStats(emitted=2, delivered=2, pending=0, dropped=0) == emitter.stats


def test_the_end_of_a_run_need_not_wait(emitter_to: EmitterMaker) -> None:
    """A run that is closed without waiting has ended, though nothing is delivered yet."""
    transport = ScriptedTransport(held=True)
    emitter = emitter_to(transport, policy=DeliveryPolicy(end_flush=PATIENCE))

    record_run("w", emitter=emitter).open().close(wait=False)
    before = emitter.stats
    transport.let_go()

    assert (2, 0) == (before.emitted, before.delivered)


def test_nobody_waits_in_vain(emitter_to: EmitterMaker) -> None:
    """While publishing fails the end of a run does not wait for it."""
    failed, ready = threading.Event(), threading.Event()

    def until_ready(_shortest: float, _longest: float) -> float:
        failed.set()
        ready.wait(PATIENCE)
        return 0

    policy = DeliveryPolicy(end_flush=10 * PATIENCE, uniform=until_ready, linger=0)
    emitter = emitter_to(ScriptedTransport([TransportUnavailableError("down")]), policy=policy)
    emitter.emit(a_run())
    assert failed.wait(PATIENCE)

    with record_run("w", emitter=emitter):
        pass

    assert emitter.stats.delivered == 0
    ready.set()
    assert FlushReport(delivered=3, pending=0, dropped=0) == emitter.flush_sync(PATIENCE)


def test_a_decorated_object(states: States) -> None:
    """An object whose call is a coroutine function is recorded until its work is done."""

    class Work:
        async def __call__(self) -> str:
            await asyncio.sleep(0)
            return states.statuses[-1]

    async def once() -> str:
        return await record_run("w", emitter=states)(Work())()

    assert asyncio.run(once()) == "running"
    assert states.statuses == ["running", "success"]


@pytest.mark.parametrize("wrapper", [classmethod, staticmethod])
def test_a_class_method_is_refused(wrapper: Callable[..., Any]) -> None:
    """What is made of a function is refused where it is decorated, and the error says what to do instead."""
    hint = "<lambda> is none; .* below @classmethod and @staticmethod"
    with pytest.raises(InvalidArgumentError, match=hint):
        record_run("w")(wrapper(lambda: None))


def test_what_is_no_function_is_refused() -> None:
    """What cannot be called is refused where it is decorated, and the error names it."""
    what: Any = 5

    with pytest.raises(InvalidArgumentError, match="and 5 is none"):
        record_run("w")(what)


def test_leaving_without_entering(states: States) -> None:
    """A block that is left twice, or was never entered, states nothing and hides no exception."""
    recorder = record_run("w", emitter=states)

    def raising() -> None:
        with ExitStack() as stack:
            stack.push(recorder)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        raising()
    with recorder:
        pass
    recorder.__exit__(None, None, None)

    assert states.statuses == ["running", "success"]


@pytest.mark.parametrize("turns", [0, 1], ids=["last in, first out", "first in, first out"])
async def test_blocks_that_share_a_recorder(states: States, turns: int) -> None:
    """Tasks that share one recorder, against the advice, end each its own run."""
    recorder = record_run("w", emitter=states)
    inside = asyncio.Event()

    async def fails() -> None:
        async with recorder:
            await inside.wait()
            raise ValueError("mine")

    async def works() -> None:
        async with recorder:
            inside.set()
            for _ in range(turns):
                await asyncio.sleep(0)

    failed, worked = await asyncio.gather(fails(), works(), return_exceptions=True)

    assert isinstance(failed, ValueError)
    assert worked is None
    first, second = states.runs[0].id, states.runs[1].id
    assert {first: "failed", second: "success"} == {run.id: run.status.value for run in states.runs[2:]}


@pytest.mark.parametrize("seconds", [1e10, 1e300])
def test_a_wait_may_be_said_to_last_for_ever(seconds: float, emitter_to: EmitterMaker) -> None:
    """A wait longer than the platform can express is as long as it can."""
    emitter = emitter_to(ScriptedTransport(), policy=DeliveryPolicy(end_flush=seconds))

    with record_run("w", emitter=emitter):
        pass

    assert emitter.stats.delivered == 2
    assert asyncio.run(emitter.flush(seconds)).delivered == 2


class _OddExit(SystemExit):
    @property
    def code(self) -> Any:  # type: ignore[override] # a name that the interpreter asks for
        raise ValueError("no code")


class _OwnExit(typer.Exit):
    pass


_ENDS = [
    (SystemExit(), "success"),
    (SystemExit(None), "success"),
    (SystemExit(0), "success"),
    (SystemExit(False), "success"),  # noqa: FBT003
    (SystemExit(signal.Handlers.SIG_DFL), "success"),
    (click.exceptions.Exit(), "success"),
    (_OwnExit(0), "success"),
    (SystemExit(1), "failed"),
    (SystemExit(True), "failed"),  # noqa: FBT003
    (SystemExit(0.0), "failed"),  # the interpreter prints it, and ends with 1
    (SystemExit(""), "failed"),
    (SystemExit("0"), "failed"),
    (SystemExit(-1), "failed"),
    (_OddExit(), "failed"),
    (click.exceptions.Exit(3), "failed"),
    (typer.Exit(1), "failed"),
    (typer.Abort(), "failed"),
    (KeyboardInterrupt(), "failed"),
]


@pytest.mark.parametrize(("error", "status"), _ENDS, ids=repr)
def test_an_exit_without_an_error(error: BaseException, status: str, states: States) -> None:
    """Who leaves the program with None or 0 has succeeded, in any kind of block; all else is a failure."""

    @record_run("w", emitter=states)
    def decorated() -> None:
        raise error

    def nested() -> None:
        with record_run("outer", emitter=states):
            decorated()

    async def asynchronous() -> None:
        async with record_run("w", emitter=states):
            raise error

    def driven() -> None:
        asynchronous().send(None)

    for block in (nested, driven):
        with pytest.raises(type(error)) as raised:
            block()
        assert error is raised.value

    assert states.statuses == ["running", "running", status, status, "running", status]


def test_an_exit_after_the_workflow_has_said_how_it_ended(states: States) -> None:
    """What a workflow has said of its end stands where it then leaves the program without an error."""

    def leave(said: str) -> None:
        with record_run("w", emitter=states) as run:
            getattr(run, said)("why")
            sys.exit(0)

    for said in ("fail", "skip", "pause"):
        with pytest.raises(SystemExit):
            leave(said)

    assert states.statuses == ["running", "failed", "running", "skipped", "running", "paused"]


def test_without_a_block(states: States) -> None:
    """A run that is opened is running, is around nothing, and ends where it is closed."""
    run = record_run("w", run_id="r", emitter=states).open()

    assert current_run() is None
    assert ["running"] == states.statuses

    run.close()

    assert ["running", "success"] == states.statuses


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("busy"), "failed"), (asyncio.CancelledError(), "cancelled")]
)
async def test_closed_with_an_error(error: BaseException, status: str, states: States) -> None:
    """A run that is closed with an error ends as if the error had left its block."""
    run = await record_run("w", emitter=states).open_async()
    await run.close_async(error)

    assert ["running", status] == states.statuses


def test_closed_while_it_waits(states: States) -> None:
    """A paused run that is closed stays paused."""
    run = record_run("w", emitter=states).open()
    run.pause("pay?")
    run.close()

    assert ["running", "paused"] == states.statuses


@pytest.mark.parametrize(("error", "statuses"), [(None, ["running"]), ("busy", ["running", "failed"])])
def test_left_open(error: str | None, statuses: list[str], states: States) -> None:
    """A run that is left open stays running when its block ends, unless an exception leaves the block."""
    with suppress(ValueError), record_run("w", emitter=states) as run:
        run.leave_open()
        if error is not None:
            raise ValueError(error)

    assert statuses == states.statuses
    assert current_run() is None


def test_a_try_that_a_scheduler_counts(states: States) -> None:
    """A run may say which try it is."""
    with record_run("w", attempt=3, emitter=states):
        pass

    assert [3, 3] == [run.attempt for run in states.runs]


def test_a_try_that_is_none(states: States) -> None:
    """A try that is no number from 1 costs no run."""
    with record_run("w", attempt=0, emitter=states):
        pass

    assert [1, 1] == [run.attempt for run in states.runs]
