from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from run_log.core import (
    Message,
    PauseRequest,
    RunRef,
    RunStatus,
    StoreUnavailableError,
    TriggerType,
    WorkflowRun,
    utc_now,
)
from run_log.core.clock import HybridLogicalClock
from run_log.core.models import MAX_ATTEMPT
from run_log.producer import RunEventEmitter, record_run, reset_default_emitter, resume_run
from run_log.producer._capture import MAX_LEFT, MAX_LEFT_BYTES
from run_log.producer._payloads import MAX_CAPTURED_BYTES
from run_log.producer._store_transport import StoreTransport
from run_log.stores import InMemoryRunLogService, get_run_log_service
from run_log.testing import a_run, an_event

from .conftest import EmitterMaker
from .transports import PATIENCE, States, logged, run_script

Block = Callable[..., Awaitable[States]]


async def _async_block(*arguments: Any, **options: Any) -> States:
    states = States()
    async with resume_run(*arguments, emitter=states, **options):
        pass
    return states


async def _sync_block(*arguments: Any, **options: Any) -> States:
    states = States()
    with resume_run(*arguments, emitter=states, **options):
        pass
    return states


@pytest.fixture(params=[_async_block, _sync_block], ids=["async with", "with"])
def resumed(request: pytest.FixtureRequest) -> Block:
    """Resume a run in an empty block, and return the states."""
    block: Block = request.param
    return block


async def _stored(**fields: Any) -> InMemoryRunLogService:
    log = InMemoryRunLogService()
    await log.save_run(a_run(**fields))
    return log


async def test_a_paused_run_goes_on(resumed: Block) -> None:
    """A paused run goes on as itself: same trigger, result, start and attempt, with who answered."""
    pause = PauseRequest(reason="pay?", assignee="ann", deadline=datetime(2027, 1, 1, tzinfo=UTC))
    fields: dict[str, Any] = {"trigger_data": {"a": 1}, "result": {"b": 2}, "attempt": 2, "pause": pause}
    log = await _stored(
        status=RunStatus.PAUSED, trigger_type=TriggerType.WEBHOOK, completed_at=None, **fields
    )
    stored = await log.get_run("workflow-1", "run-1")
    assert stored is not None

    states = await resumed("workflow-1", "run-1", answered_by="bob", run_log=log)

    assert states.statuses == ["running", "success"]
    for run in states.runs:
        assert stored.key == run.key
        assert (run.trigger_type, run.started_at) == (TriggerType.WEBHOOK, stored.started_at)
        assert {**fields, "pause": pause.model_copy(update={"answered_by": "bob"})} == {
            name: getattr(run, name) for name in fields
        }


ANSWER: dict[str, Any] = {
    "answered_by": "bob",
    "comment": "as agreed",
    "choice": "pay",
    "values": {"amount": 7},
}


async def test_an_answer_by_the_workflow_is_one_by_the_run_log(emitter_to: EmitterMaker) -> None:
    """A continuation tells the answer to its pause as `RunLog.resume` does, in the run and its history."""
    told: list[tuple[Any, ...]] = []
    pause = PauseRequest(reason="pay?", choices=("pay", "wait"), form={"required": ["amount"]})
    for is_by_workflow in (True, False):
        log = await _stored(status=RunStatus.PAUSED, completed_at=None, pause=pause)
        emitter = emitter_to(StoreTransport(lambda log=log: log))  # type: ignore[misc]
        late: dict[str, Any] = {"choice": "wait", "values": {"amount": 8}}
        answer = ANSWER if is_by_workflow else late
        if not is_by_workflow:
            await log.resume("workflow-1", "run-1", **ANSWER)
        async with resume_run("workflow-1", "run-1", **answer, run_log=log, emitter=emitter):
            pass
        await emitter.flush(PATIENCE)
        run = await log.get_run("workflow-1", "run-1")
        assert run is not None
        answers = [
            (line.answered_by, line.comment, line.choice, line.values)
            for line in await log.get_history("workflow-1", "run-1")
            if line.answered_by
        ]
        told.append((run.pause, answers))

    assert (pause.model_copy(update=ANSWER), [tuple(ANSWER.values())]) == told[0]
    assert told[0] == told[1]


async def test_an_answer_that_does_not_fit(resumed: Block, caplog: pytest.LogCaptureFixture) -> None:
    """A continuation leaves out and logs what the pause does not ask for, and the block runs."""
    pause = PauseRequest(choices=("pay",), form={"required": ["amount"]})
    log = await _stored(status=RunStatus.PAUSED, completed_at=None, pause=pause)

    states = await resumed("workflow-1", "run-1", choice="no", values={"total": 1}, run_log=log)

    assert [pause, pause] == [run.pause for run in states.runs]
    losses = logged(caplog, "run_log_pause_left_out")
    assert [("choice", "workflow-1"), ("values", "workflow-1")] == [
        (loss["field"], loss["workflow_id"]) for loss in losses
    ]


@pytest.mark.parametrize("status", [RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.SKIPPED])
async def test_an_ended_run_goes_on_as_its_next_attempt(status: RunStatus, resumed: Block) -> None:
    """A run that had ended is tried again as the next attempt, without the last one's error and end."""
    log = await _stored(status=status, error="bad", completed_at=utc_now(), duration_ms=5)

    states = await resumed("workflow-1", "run-1", run_log=log)

    began, ended = states.runs
    assert [(run.status, run.attempt, run.error) for run in states.runs] == [
        (RunStatus.RUNNING, 2, None),
        (RunStatus.SUCCESS, 2, None),
    ]
    assert began.completed_at is None
    assert ended.completed_at is not None


async def test_a_run_in_its_last_attempt(resumed: Block, caplog: pytest.LogCaptureFixture) -> None:
    """A run after whose attempt there is none goes on in it: its states are told, and that is logged."""
    log = await _stored(status=RunStatus.FAILED, attempt=MAX_ATTEMPT)

    states = await resumed("workflow-1", "run-1", run_log=log)

    assert [("running", MAX_ATTEMPT), ("success", MAX_ATTEMPT)] == [
        (run.status.value, run.attempt) for run in states.runs
    ]
    assert ["run_log_no_next_attempt"] == [vars(record).get("event") for record in caplog.records]


@pytest.mark.parametrize(("retry", "attempt"), [(False, 1), (True, 2)])
async def test_an_interrupted_run(retry: bool, attempt: int, resumed: Block) -> None:  # noqa: FBT001
    """A run that had not ended goes on in its attempt, or as the next one where that is said."""
    log = await _stored(status=RunStatus.RUNNING, completed_at=None)

    states = await resumed("workflow-1", "run-1", retry=retry, run_log=log)

    assert [attempt] * 2 == [run.attempt for run in states.runs]


async def test_the_duration_counts_from_the_runs_start(resumed: Block) -> None:
    """How long a resumed run took is counted from when it started, pauses included."""
    started = utc_now() - timedelta(hours=1)
    log = await _stored(status=RunStatus.PAUSED, started_at=started, completed_at=None)

    states = await resumed("workflow-1", "run-1", run_log=log)

    hour = timedelta(hours=1).total_seconds() * 1_000
    assert hour <= states.runs[-1].duration_ms < 2 * hour


async def test_what_is_said_next_is_later_whatever_the_clock(emitter_to: EmitterMaker) -> None:
    """A process whose clock is an hour behind resumes a run with later versions than the stored one's."""
    log = InMemoryRunLogService()
    ahead = int((utc_now() + timedelta(hours=1)).timestamp() * 1e6)
    await log.apply([an_event(a_run(status=RunStatus.PAUSED, completed_at=None), hlc=ahead)])
    emitter = emitter_to(StoreTransport(lambda: log), clock=HybridLogicalClock())

    async with resume_run("workflow-1", "run-1", run_log=log, emitter=emitter):
        pass
    await emitter.flush(PATIENCE)

    history = await log.get_history("workflow-1", "run-1")
    assert [line.status for line in history] == [RunStatus.PAUSED, RunStatus.RUNNING, RunStatus.SUCCESS]
    assert [line.anomaly for line in history] == [False] * 3


async def test_without_anything_given_the_environments_run_log_is_read(
    resumed: Block, backend: Callable[[str], None]
) -> None:
    """By the environment alone the run is read where this process keeps its runs."""
    backend("memory")
    await get_run_log_service().save_run(a_run(status=RunStatus.PAUSED, result={"b": 2}, completed_at=None))

    states = await resumed("workflow-1", "run-1")

    assert [run.result for run in states.runs] == [{"b": 2}] * 2


class _Broken(InMemoryRunLogService):
    async def get_run(self, workflow_id: str, run_id: str) -> WorkflowRun | None:
        raise StoreUnavailableError(f"no answer for {workflow_id} {run_id}")


class _Silent(InMemoryRunLogService):
    async def get_run(self, workflow_id: str, run_id: str) -> WorkflowRun | None:
        await asyncio.Event().wait()
        raise AssertionError(workflow_id, run_id)


class _Cancelled(InMemoryRunLogService):
    async def get_run(self, workflow_id: str, run_id: str) -> WorkflowRun | None:
        raise asyncio.CancelledError(workflow_id, run_id)


class _NoRun(InMemoryRunLogService):
    async def get_run(self, workflow_id: str, run_id: str) -> Any:
        return (workflow_id, run_id)


@pytest.mark.parametrize(
    ("log", "timeout", "told"),
    [
        (InMemoryRunLogService(), PATIENCE, "no such run"),
        (_Broken(), PATIENCE, "StoreUnavailableError: no answer for w r"),
        (_Silent(), 0.05, "TimeoutError"),
        (_Cancelled(), PATIENCE, ""),
        (_NoRun(), PATIENCE, "AttributeError"),
    ],
    ids=["unknown", "unavailable", "silent", "cancelled", "no run"],
)
async def test_a_run_that_cannot_be_read(
    log: InMemoryRunLogService,
    timeout: float,  # noqa: ASYNC109 - what the block is given
    told: str,
    resumed: Block,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run that is not there, or not read in time, goes on with what is known of it; the log says so."""
    states = await resumed("w", "r", **ANSWER, run_log=log, timeout=timeout)

    assert states.statuses == ["running", "success"]
    assert {("w", "r")} == {run.key for run in states.runs}
    assert PauseRequest(**ANSWER) == states.runs[-1].pause
    (record,) = logged(caplog, "run_log_run_not_read")
    assert (record["workflow_id"], record["run_id"]) == ("w", "r")
    assert told in record["error"]


async def test_a_wrong_environment_does_not_hurt(
    resumed: Block, backend: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Where the environment names no run log the block runs all the same, and the log says what to set."""
    backend("no-such")

    states = await resumed("w", "r")

    assert states.statuses == ["running", "success"]
    (record,) = logged(caplog, "run_log_run_not_read")
    assert "no-such" in record["error"]


async def test_a_cancelled_read_is_cancelled(states: States) -> None:
    """A task that is cancelled while the run is read is cancelled, and states nothing."""
    log = _Silent()

    async def work() -> None:
        async with resume_run("w", "r", run_log=log, emitter=states, timeout=PATIENCE):
            raise AssertionError

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert states.runs == []


async def test_pause_and_resume_through_the_run_log(backend: Callable[[str], None]) -> None:
    """A run that one block pauses and another one resumes is one run, with one history and one count."""
    backend("memory")
    with record_run("w", run_id="r", trigger_data={"a": 1}) as run:
        run.pause("pay?", assignee="ann")
    await asyncio.to_thread(reset_default_emitter)
    pending = await get_run_log_service().get_pending_runs()

    async with resume_run("w", "r", answered_by="ann") as run:
        run.set_result({"paid": True})
    await asyncio.to_thread(reset_default_emitter)

    assert ["r"] == [run.id for run in pending]
    log = get_run_log_service()
    assert isinstance(log, InMemoryRunLogService)
    assert await log.get_pending_runs() == []
    stored = await log.get_run("w", "r")
    assert stored is not None
    assert (stored.status, stored.trigger_data, stored.result) == ("success", {"a": 1}, {"paid": True})
    assert {"total": 1, "successful": 1} == await log.get_stats("w")
    statuses = [line.status.value for line in await log.get_history("w", "r")]
    assert statuses == ["running", "paused", "running", "success"]


class _Behind(StoreTransport):
    """Delivers to a projection only what comes after the first events."""

    def __init__(self, log: InMemoryRunLogService, *, lost: int) -> None:
        super().__init__(lambda: log)
        self._left = lost

    def publish(self, messages: Sequence[Message]) -> None:
        skipped = min(self._left, len(messages))
        self._left -= skipped
        if messages[skipped:]:
            super().publish(messages[skipped:])


STARTED: dict[str, Any] = {
    "trigger_type": "chat",
    "trigger_data": {"a": 1},
    "attempt": 2,
    "labels": {"team": "sales"},
    "parent": RunRef("around", "r0"),
}


async def _left(emitter: RunEventEmitter, error: Exception | None) -> WorkflowRun:
    """Leave a run paused, or failed by *error*, and return what was stated last of it."""
    with contextlib.suppress(ValueError):
        async with record_run("w", run_id="r", **STARTED, emitter=emitter) as run:
            run.set_result({"b": 2})
            run.pause("pay?", choices=("pay", "wait"))
            if error is not None:
                raise error
    await emitter.flush(PATIENCE)
    known = emitter.left.event(("w", "r"))
    assert known is not None
    return known.run


@pytest.mark.parametrize("lost", [1, 2, 3], ids=["begun", "paused", "failed"])
@pytest.mark.parametrize("is_failed", [False, True], ids=["paused", "failed"])
async def test_a_projection_that_is_behind(
    lost: int,
    is_failed: bool,  # noqa: FBT001
    emitter_to: EmitterMaker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run that this process left goes on whole, whatever of it is projected yet; nothing is logged."""
    log = InMemoryRunLogService()
    emitter = emitter_to(_Behind(log, lost=lost))
    before = await _left(emitter, ValueError("no") if is_failed else None)
    async with resume_run("w", "r", choice="pay", run_log=log, emitter=emitter):
        pass
    await emitter.flush(PATIENCE)
    run = await log.get_run("w", "r")

    assert run is not None
    assert {
        **STARTED,
        "attempt": 3 if is_failed else 2,
        "result": {"b": 2},
        "started_at": before.started_at,
    } == {name: getattr(run, name) for name in (*STARTED, "result", "started_at")}
    assert run.pause is not None
    assert ("pay?", None if is_failed else "pay") == (run.pause.reason, run.pause.choice)
    assert [] == caplog.records


async def test_what_others_have_said_since(emitter_to: EmitterMaker) -> None:
    """A run that another process went on with goes on from what is projected of that."""
    log = InMemoryRunLogService()
    emitter, other = emitter_to(StoreTransport(lambda: log)), emitter_to(StoreTransport(lambda: log))
    await _left(emitter, None)
    async with resume_run("w", "r", choice="pay", run_log=log, emitter=other) as run:
        run.pause("Which desk?", choices=("oak", "steel"))
    await other.flush(PATIENCE)

    async with resume_run("w", "r", choice="oak", run_log=log, emitter=emitter):
        pass
    await emitter.flush(PATIENCE)

    stored = await log.get_run("w", "r")
    assert stored is not None
    assert stored.pause is not None
    assert ("Which desk?", "oak") == (stored.pause.reason, stored.pause.choice)


class _Down(_Broken):
    async def wait_for(self, workflow_id: str, run_id: str, *_: object, **__: object) -> Any:
        raise StoreUnavailableError(f"no answer for {workflow_id} {run_id}")


class _Own:
    """A platform's own run log, which nobody can wait for."""

    async def get_run(self, *_: object) -> None:
        """Know no run."""


@pytest.mark.parametrize(
    "log", [InMemoryRunLogService(), _Down(), _Own()], ids=["unknown", "unavailable", "a platform's own"]
)
async def test_what_the_caller_knows(log: object, resumed: Block) -> None:
    """A run that cannot be read goes on from what its caller knows of it."""
    known = an_event(
        a_run(status=RunStatus.PAUSED, completed_at=None, pause=PauseRequest(reason="pay?"), **STARTED)
    )

    states = await resumed("workflow-1", "run-1", comment="yes", known=known, run_log=log)

    for run in states.runs:
        assert STARTED == {name: getattr(run, name) for name in STARTED}
        assert PauseRequest(reason="pay?", comment="yes") == run.pause


async def test_what_the_caller_knows_of_another_run(resumed: Block) -> None:
    """A state of another run is not taken."""
    states = await resumed("w", "r", known=an_event(a_run(**STARTED)), run_log=InMemoryRunLogService())

    assert [({}, 1)] * 2 == [(run.trigger_data, run.attempt) for run in states.runs]


async def test_what_is_remembered_is_bounded(emitter_to: EmitterMaker) -> None:
    """An emitter remembers only the newest unfinished runs, so many and so many bytes, and no others."""
    emitter = emitter_to(StoreTransport(InMemoryRunLogService))

    def remembered(*, count: int, size: int, status: str = "pause") -> list[bool]:
        for number in range(count):
            with record_run("w", run_id=f"r{number}", trigger_data={"x": "x" * size}, emitter=emitter) as run:
                getattr(run, status)()
        return [emitter.left.event(("w", f"r{number}")) is not None for number in range(count)]

    assert [False, *[True] * MAX_LEFT] == remembered(count=MAX_LEFT + 1, size=1)
    fit = MAX_LEFT_BYTES // MAX_CAPTURED_BYTES
    assert [False, *[True] * fit] == remembered(count=fit + 1, size=MAX_CAPTURED_BYTES - 100)
    assert [False] * 9 == remembered(count=9, size=1, status="skip")
    await emitter.flush(PATIENCE)


@pytest.mark.process
def test_a_resumed_run_leaves_no_thread() -> None:
    """Reading a run leaves no thread behind."""
    printed = run_script(
        """
        import threading
        from run_log.producer import resume_run
        with resume_run("w", "r"):
            pass
        names = {thread.name for thread in threading.enumerate()}
        print(sorted(names - {"MainThread", "run-log-emitter"}))
        """
    )

    assert printed == "[]\n"
