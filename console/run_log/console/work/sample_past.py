"""What the sample workflows did in the weeks before: without it, every chart would be empty."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from run_log.core import RunEvent, RunStatus, Step, StepStatus, TriggerType, WorkflowRun
from run_log.core.clock import micros_of

INVOICES: Final = "invoices/sync"
MAILS: Final = "mails/triage"
EXPENSES: Final = "expenses/pay"
REPORTS: Final = "reports/nightly"

REGIONS: Final = ("eu", "us", "apac")

DAYS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class _Habit:
    """How a workflow has been running."""

    workflow_id: str
    trigger_type: TriggerType
    a_day: int
    """How many runs."""
    seconds: float
    """How long one takes, about."""
    fails: float
    """How likely one is to fail."""
    errors: tuple[tuple[str, str], ...]
    """The types and texts of these failures; a text has a number in it."""
    steps: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    """Texts of `trigger_data`, under the name of the first word."""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    regional: bool = False


_HABITS: Final = (
    _Habit(
        workflow_id=INVOICES,
        trigger_type=TriggerType.SCHEDULED,
        a_day=9,
        seconds=8,
        fails=0.08,
        errors=(
            ("ConnectionError", "ConnectionError: 502 from billing-{}.example.com"),
            ("ConnectionError", "ConnectionError: 502 from billing-{}.example.com"),
            ("KeyError", "KeyError: 'invoice_number' in file {}"),
        ),
        steps=("download", "parse", "post"),
        labels={"team": "billing"},
        regional=True,
    ),
    _Habit(
        workflow_id=MAILS,
        trigger_type=TriggerType.GMAIL_PUSH,
        a_day=14,
        seconds=0.5,
        fails=0.05,
        errors=(("ValueError", "ValueError: message {} has no sender"),),
    ),
    _Habit(
        workflow_id=EXPENSES,
        trigger_type=TriggerType.FILE_UPLOAD,
        a_day=3,
        seconds=3_600,
        fails=0.1,
        errors=(("", "rejected by mei@example.com: not in the budget of 20{}"),),
        steps=("read receipt", "transfer"),
        labels={"team": "office"},
    ),
    _Habit(
        workflow_id=REPORTS,
        trigger_type=TriggerType.SCHEDULED,
        a_day=1,
        seconds=24,
        fails=0.04,
        errors=(("MemoryError", "MemoryError: {} rows do not fit"),),
        steps=REGIONS,
    ),
)


def run_name(moment: datetime, chance: random.Random) -> str:
    """Return the id of a run that starts at *moment*."""
    return f"{moment:%Y%m%d-%H%M%S}-{chance.randrange(16**4):04x}"


def past(now: datetime, chance: random.Random, *, days: int = DAYS) -> Iterator[RunEvent]:
    """Yield the events of the sample workflows' runs in the *days* before *now*, all ended by then."""
    for day in range(days, 0, -1):
        for habit in _HABITS:
            # A bad day now and then, so that the bars tell something.
            worse = chance.choice((3, *(1,) * 13))
            for _ in range(chance.randint(habit.a_day // 2, habit.a_day + habit.a_day // 2)):
                yield from _run(habit, now - timedelta(days=chance.uniform(day - 1, day)), now, worse, chance)


def _run(
    habit: _Habit, started_at: datetime, now: datetime, worse: float, chance: random.Random
) -> Iterator[RunEvent]:
    seconds = min(
        habit.seconds * chance.lognormvariate(0, 0.5), max((now - started_at).total_seconds() - 1, 0.1)
    )
    ended_at = started_at + timedelta(seconds=seconds)
    number = chance.randint(10, 99)
    status = RunStatus.FAILED if chance.random() < habit.fails * worse else RunStatus.SUCCESS
    fields: dict[str, Any] = {
        "id": run_name(started_at, chance),
        "workflow_id": habit.workflow_id,
        "trigger_type": habit.trigger_type,
        "started_at": started_at,
        "labels": {**habit.labels, "region": chance.choice(REGIONS)} if habit.regional else habit.labels,
        "trigger_data": {"number": number},
    }
    ended: dict[str, Any] = {"completed_at": ended_at, "duration_ms": seconds * 1_000}
    if status is RunStatus.FAILED:
        error_type, text = chance.choice(habit.errors)
        ended |= {"error": text.format(number), "error_type": error_type or None}
    else:
        ended |= {"result": {"done": number}}
    yield _event(WorkflowRun(**fields, status=RunStatus.RUNNING), started_at)
    steps = tuple(_steps(habit, started_at, seconds, status, ended.get("error")))
    yield _event(WorkflowRun(**fields, **ended, status=status), ended_at, steps)


def _steps(
    habit: _Habit, started_at: datetime, seconds: float, status: RunStatus, error: str | None
) -> Iterator[Step]:
    part = timedelta(seconds=seconds) / max(len(habit.steps), 1)
    for number, name in enumerate(habit.steps):
        begun = started_at + number * part
        fails = status is RunStatus.FAILED and number == len(habit.steps) - 1
        yield Step(
            key=name.replace(" ", "-"),
            name=name,
            status=StepStatus.FAILED if fails else StepStatus.SUCCESS,
            started_at=begun,
            ended_at=begun + part,
            error=error if fails else None,
            attributes={},
            version=micros_of(begun + part),
        )


def _event(run: WorkflowRun, moment: datetime, steps: tuple[Step, ...] = ()) -> RunEvent:
    # The version is of that time too: a run that goes on now is later.
    return RunEvent(hlc=micros_of(moment), occurred_at=moment, run=run, steps=steps)
