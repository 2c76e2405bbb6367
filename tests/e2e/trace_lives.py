"""Parts of the trace with what it does not have: failures, retries, pauses, steps, and runs that fell silent.

In the trace every run ended well. The rest is by rule, from a checksum of the run's id: always the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from zlib import crc32

from run_log.core import PauseRequest, RunEvent, RunRef, RunStatus, Step, StepStatus, WorkflowRun
from run_log.core.clock import micros_of

PART: Final = 10
"""One of so many instances: whole ones, so that most runs have their parents beside them."""

_PEOPLE: Final = ("ann@example.com", "bo@example.com", "mei@example.com")
_ERRORS: Final = (
    ("MemoryError", "cannot allocate {} bytes"),
    ("TimeoutError", "no answer from node-{} within 30 s"),
    ("subprocess.CalledProcessError", "the program exited with status 137"),
    ("subprocess.CalledProcessError", "the program exited with status 137"),
)
_FETCHED, _COMPUTED = 0.1, 0.9
_USD_PER_CPU_SECOND: Final = 0.000018


def lives(runs: Sequence[WorkflowRun]) -> list[RunEvent]:
    """Return the events of one in `PART` of the trace's instances."""
    workflows = {run.id: run.workflow_id for run in runs}
    kept = [run for run in runs if crc32(str(run.trigger_data["instance"]).encode()) % PART == 0]
    return [event for run in kept for event in _life(_placed(run, workflows))]


def _placed(run: WorkflowRun, workflows: Mapping[str, str]) -> WorkflowRun:
    instance = str(run.trigger_data["instance"])
    application, site = instance.split("-")[:2] if instance.count("-") > 1 else (instance, "unknown")
    parents = [f"{instance}:{name}" for name in run.trigger_data["parents"]]
    parent = next((RunRef(workflows[one], one) for one in parents if one in workflows), None)
    return run.model_copy(update={"labels": {"application": application, "site": site}, "parent": parent})


def _life(run: WorkflowRun) -> Iterator[RunEvent]:
    chance = crc32(run.id.encode())
    percent, more = chance % 100, chance // 100
    started_at, took = run.started_at, timedelta(milliseconds=run.duration_ms)
    yield _event(run, started_at, status=RunStatus.RUNNING)
    if percent == 99:
        return
    if percent < len(_ERRORS):
        kind, text = _ERRORS[percent]
        yield _event(
            run,
            started_at + took,
            status=RunStatus.FAILED,
            error_type=kind,
            error=f"{kind}: {text.format(more % 10**6)}",
            completed_at=started_at + took,
            duration_ms=run.duration_ms,
        )
        if more % 3 == 0:
            return
        again = started_at + took + timedelta(minutes=5)
        yield _event(run, again, status=RunStatus.RUNNING, attempt=2)
        yield _ended(run, again + took, attempt=2)
        return
    if percent >= 95:
        pause = PauseRequest(reason="publish the results?", assignee=_PEOPLE[more % 3], choices=("yes", "no"))
        asked_at = started_at + took
        answered_at = asked_at + timedelta(minutes=1 + more % 240)
        yield _event(run, asked_at, status=RunStatus.PAUSED, pause=pause)
        answer = {"answered_by": _PEOPLE[more % 3], "choice": "yes" if more % 4 else "no"}
        yield _ended(run, answered_at, pause=pause.model_copy(update=answer))
        return
    yield _ended(run, started_at + took)


def _ended(run: WorkflowRun, moment: datetime, **changes: Any) -> RunEvent:
    ended: dict[str, Any] = {"completed_at": moment, "duration_ms": run.duration_ms, "result": run.result}
    event = _event(run, moment, status=RunStatus.SUCCESS, **ended, **changes)
    return event.model_copy(update={"steps": tuple(_steps(run))})


def _steps(run: WorkflowRun) -> Iterator[Step]:
    took = timedelta(milliseconds=run.duration_ms)
    busy = float(run.result.get("avgCPU") or 100) / 100
    parts = {"fetch": (0, _FETCHED), "compute": (_FETCHED, _COMPUTED), "store": (_COMPUTED, 1)}
    for name, (begin, end) in parts.items():
        usd = (end - begin) * took.total_seconds() * busy * _USD_PER_CPU_SECOND
        yield Step(
            key=name,
            name=name,
            status=StepStatus.SUCCESS,
            started_at=run.started_at + begin * took,
            ended_at=run.started_at + end * took,
            attributes={"usd": round(usd, 9)},
            version=micros_of(run.started_at + end * took),
        )


def _event(run: WorkflowRun, moment: datetime, *, status: RunStatus, **changes: Any) -> RunEvent:
    nothing: dict[str, Any] = {"completed_at": None, "duration_ms": 0.0, "result": {}}
    state: dict[str, Any] = {**nothing, "status": status, **changes}
    return RunEvent(
        event_id=f"{crc32(run.id.encode()):08x}-{status.value}",
        hlc=micros_of(moment),
        occurred_at=moment,
        run=run.model_copy(update=state),
    )
