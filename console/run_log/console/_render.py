"""What people see of each thing: which columns of a table, which lines of a sheet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from run_log.core import RunStatus, Transition, WorkflowRun
from run_log.stores import PendingRun, StaleRun, TimeBucket, WorkflowStats, WorkflowSummary

from ._checks import Check, Verdict
from ._layout import Cell, Column, Sheet, Styled, Table, Verbatim
from ._output import json_text

if TYPE_CHECKING:
    from run_log.projector import DeadLetter, HandledLetter

STYLES: Final[Mapping[RunStatus, str]] = {
    RunStatus.RUNNING: "cyan",
    RunStatus.SUCCESS: "green",
    RunStatus.FAILED: "red",
    RunStatus.PAUSED: "magenta",
}
"""Colours of what is under way, and of what has to be looked at; the word says it too."""

VERDICT_STYLES: Final[Mapping[Verdict, str]] = {
    Verdict.OK: "green",
    Verdict.WRONG: "red",
    Verdict.UNKNOWN: "magenta",
}

_SECOND: Final = 1_000.0
_MINUTE: Final = 60_000.0
_DAY: Final = 86_400.0
_LONGEST_STATUS: Final = max(map(len, RunStatus))
_MILLISECOND: Final = timedelta(milliseconds=1)


def runs_table(runs: Sequence[WorkflowRun], *, workflow_id: str | None = None) -> Table:
    """Return *runs* as a table, in the order given.

    Args:
        runs: What is shown.
        workflow_id: The workflow that all are of, which was asked for; None if they are of several.
    """
    return Table(
        title="" if workflow_id is None else f"Runs of {workflow_id}",
        columns=[
            Column("run"),
            Column("status", stays=True),
            Column("started (UTC)"),
            Column("took", right=True),
            Column("workflow", spare=workflow_id is not None),
            Column("error", prose=True),
        ],
        rows=[
            (
                run.id,
                status_text(run.status),
                moment(run.started_at),
                took(run.duration_ms) if run.status.is_terminal else "",
                run.workflow_id,
                run.error or "",
            )
            for run in runs
        ],
    )


def stale_table(runs: Sequence[StaleRun]) -> Table:
    """Return runs that nothing was heard of for long as a table, in the order given."""
    return Table(
        columns=[
            Column("run"),
            Column("status", stays=True),
            Column("silent for", right=True),
            Column("heard of (UTC)"),
            Column("workflow"),
        ],
        rows=[
            (
                stale.run.id,
                status_text(stale.run.status),
                elapsed(stale.silence),
                moment(stale.heard_at),
                stale.run.workflow_id,
            )
            for stale in runs
        ],
    )


def findings_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return what is not as it has to be as a table.

    Args:
        headings: Of the workflow, of what it is, of two numbers, and of a note.
        rows: These of each.
    """
    workflow, what, first, second, noted = headings
    numbers = (Column(name, right=True, labelled=True) for name in (first, second))
    return Table(
        columns=[Column(workflow), Column(what, stays=True), *numbers, Column(noted, prose=True)], rows=rows
    )


def pending_table(runs: Sequence[PendingRun]) -> Table:
    """Return runs that wait for an answer as a table, in the order given."""
    return Table(
        columns=[
            Column("run"),
            Column("waits for", right=True),
            Column("deadline (UTC)"),
            Column("assignee"),
            Column("workflow"),
            Column("reason", prose=True),
        ],
        rows=[
            (
                pending.run.id,
                elapsed(pending.age),
                _deadline(pending),
                pending.assignee or "anybody",
                pending.run.workflow_id,
                pending.reason,
            )
            for pending in runs
        ],
    )


def workflows_table(workflows: Sequence[WorkflowStats]) -> Table:
    """Return the counts of workflows as a table, in the order given."""
    return Table(
        columns=[
            Column("workflow"),
            Column("total", right=True, stays=True, labelled=True),
            *(Column(status.value, right=True, stays=True, labelled=True) for status in RunStatus),
            Column("as of (UTC)", spare=True),
        ],
        rows=[
            (
                stats.workflow_id,
                str(stats.total),
                *(str(stats.by_status.get(status, 0) or "") for status in RunStatus),
                "" if stats.as_of is None else moment(stats.as_of),
            )
            for stats in workflows
        ],
    )


def run_sheet(run: WorkflowRun) -> Sheet:
    """Return all of a run."""
    pause = run.pause and run.pause.model_dump(mode="json", exclude_none=True)
    return Sheet(
        rows=[
            ("run", _name(run.id)),
            ("workflow", _name(run.workflow_id)),
            ("status", status_text(run.status)),
            ("started (UTC)", moment(run.started_at)),
            ("completed (UTC)", "" if run.completed_at is None else moment(run.completed_at)),
            ("took", took(run.duration_ms) if run.status.is_terminal else ""),
            ("trigger", f"{run.trigger_type}"),
            ("attempt", str(run.attempt)),
            ("error", run.error or ""),
            ("pause", _json(pause) if pause else ""),
            ("trigger data", _json(run.trigger_data) if run.trigger_data else ""),
            ("result", _json(run.result) if run.result else ""),
        ]
    )


def run_line(run: WorkflowRun) -> Table:
    """Return a run as a row that is shown by itself, without headings."""
    return Table(
        columns=[
            Column("started (UTC)"),
            Column("status"),
            Column("run"),
            Column("workflow"),
            Column("error", prose=True),
        ],
        rows=[
            (
                moment(run.started_at),
                Styled(run.status.value.ljust(_LONGEST_STATUS), status_text(run.status).style),
                run.id,
                run.workflow_id,
                run.error or "",
            )
        ],
    )


def summary_view(summary: WorkflowSummary) -> Iterator[Table | Sheet]:
    """Return a workflow at a glance: what there is in all, and by hour or day."""
    durations, rate = summary.durations, summary.success_rate
    lasts = {
        "last run": summary.last_run,
        "last success": summary.last_success,
        "last failure": summary.last_failure,
    }
    percentiles = (durations.p50, durations.p95, durations.p99)
    yield Sheet(
        rows=[
            ("workflow", _name(summary.workflow_id)),
            ("since (UTC)", "the beginning" if summary.since is None else moment(summary.since)),
            ("runs", str(summary.total)),
            *((status.value, str(count)) for status, count in summary.by_status.items()),
            ("success rate", "" if rate is None else f"{rate:.1%}"),
            ("took on average", _took(durations.mean)),
            ("p50, p95, p99", ", ".join(_took(value) for value in percentiles if value is not None)),
            *((name, "none" if run is None else _run_at(run)) for name, run in lasts.items()),
            ("as of (UTC)", "" if summary.as_of is None else moment(summary.as_of)),
        ]
    )
    if any(bucket.total for bucket in summary.buckets):
        yield buckets_table(summary.buckets)


def buckets_table(buckets: Sequence[TimeBucket]) -> Table:
    """Return the hours or days in which runs started as a table, the oldest first, without empty ones."""
    return Table(
        columns=[
            Column("began (UTC)"),
            *(Column(name, right=True) for name in ("runs", "successful", "failed", "p50", "p95")),
        ],
        rows=[
            (
                moment(bucket.begins)[:-3],
                str(bucket.total),
                str(bucket.by_status.get(RunStatus.SUCCESS, 0)),
                str(bucket.by_status.get(RunStatus.FAILED, 0)),
                _took(bucket.durations.p50),
                _took(bucket.durations.p95),
            )
            for bucket in buckets
            if bucket.total
        ],
    )


def checks_table(checks: Sequence[Check]) -> Table:
    """Return what was looked at as a table, in the order given; what was found before is not told again."""
    told: dict[tuple[str, str], str] = {}
    for check in checks:
        told.setdefault((check.found, check.remedy), check.name)
    return Table(
        columns=[
            Column("check"),
            Column("verdict"),
            Column("found", prose=True, wraps=True),
            Column("what to do", prose=True, wraps=True, labelled=True),
        ],
        rows=[
            (
                check.name,
                Styled(check.verdict.value, VERDICT_STYLES.get(check.verdict, "")),
                *((check.found, check.remedy) if first == check.name else (f"as for {first}", "")),
            )
            for check in checks
            for first in [told[check.found, check.remedy]]
        ],
    )


def history_table(history: Sequence[Transition]) -> Table:
    """Return a run's history as a table, oldest first."""
    return Table(
        columns=[
            Column("when (UTC)"),
            Column("status"),
            Column("attempt", right=True),
            Column("lasted", right=True),
            Column("event", spare=True),
            Column("note", prose=True),
        ],
        rows=[
            (
                moment(transition.occurred_at),
                status_text(transition.status),
                str(transition.version.attempt),
                _took(transition.lasted),
                transition.version.event_id[-12:],
                ", ".join(_notes(transition)),
            )
            for transition in history
        ],
    )


def letters_table(letters: Sequence[DeadLetter]) -> Table:
    """Return dead letters as a table, in the order given."""
    return Table(
        columns=[
            Column("message id"),
            Column("reason"),
            Column("since (UTC)"),
            Column("workflow"),
            Column("run"),
            Column("error", prose=True),
        ],
        rows=[
            (
                letter.message_id,
                letter.reason,
                "" if letter.published_at is None else moment(letter.published_at),
                letter.workflow_id or "",
                letter.run_id or "",
                letter.error,
            )
            for letter in letters
        ],
    )


def letter_sheet(letter: DeadLetter) -> Sheet:
    """Return all of a dead letter: why it is here, its attributes, its body."""
    attributes = "\n".join(f"{name} = {value}" for name, value in sorted(letter.attributes.items()))
    return Sheet(
        rows=[
            ("dead letter", _name(letter.message_id)),
            ("since (UTC)", "" if letter.published_at is None else moment(letter.published_at)),
            ("reason", letter.reason),
            ("error", letter.error),
            ("workflow", _name(letter.workflow_id or "")),
            ("run", _name(letter.run_id or "")),
            ("original message", letter.original_id or ""),
            ("deliveries", str(letter.delivery_attempt or "")),
            ("attributes", Verbatim(attributes)),
            ("left out", f"{letter.left_out} attributes" if letter.left_out else ""),
            ("bytes", f"{len(letter.data):,}"),
            (
                "body",
                Verbatim(letter.data.decode(errors="backslashreplace"))
                if letter.body is None
                else _json(letter.body),
            ),
        ]
    )


def handled_table(letters: Sequence[HandledLetter], *, dry_run: bool) -> Table:
    """Return what became of dead letters as a table, in the order given; or what would in a dry run."""
    return Table(
        columns=[
            Column("message id"),
            Column("would be" if dry_run else "outcome", stays=True),
            Column("reason"),
            Column("workflow"),
            Column("run"),
            Column("why", prose=True),
        ],
        rows=[
            (
                handled.letter.message_id,
                handled.outcome.value,
                handled.letter.reason,
                handled.letter.workflow_id or "",
                handled.letter.run_id or "",
                handled.why,
            )
            for handled in letters
        ],
    )


def status_text(status: RunStatus) -> Styled:
    """Return *status* in its colour; the word says it too."""
    return Styled(status.value, STYLES.get(status, ""))


def moment(value: datetime) -> str:
    """Return *value*, in UTC, to the second; any year has four digits."""
    return value.replace(tzinfo=None).isoformat(" ", "seconds")


def took(milliseconds: float) -> str:
    """Return how long something took in units that people use; any number has some form."""
    if not math.isfinite(milliseconds):
        return f"{milliseconds} ms"
    if milliseconds < 0:
        return f"-{took(-milliseconds)}"
    if milliseconds < _SECOND:
        return f"{milliseconds:.1f} ms"
    seconds = milliseconds / _SECOND
    return f"{seconds:.2f} s" if milliseconds < _MINUTE else _clock(seconds)


def elapsed(value: timedelta) -> str:
    """Return *value* in days, hours, minutes and whole seconds."""
    return _clock(value.total_seconds())


def _clock(seconds: float) -> str:
    if seconds < 0:
        return f"-{_clock(-seconds)}"
    days, rest = divmod(seconds, _DAY)
    if days > timedelta.max.days:
        return f"{days:.3g} days"
    clock = str(timedelta(seconds=int(rest)))
    return f"{days:.0f}d {clock:0>8}" if days else clock


def _took(value: timedelta | None) -> str:
    return "" if value is None else took(value / _MILLISECOND)


def _run_at(run: WorkflowRun) -> Verbatim:
    return _name(f"{run.id} at {moment(run.started_at)}")


def _json(value: object) -> Verbatim:
    return Verbatim(json_text(value, indent=2, ascii_only=False))


def _name(text: str) -> Verbatim:
    # A name is one line, whatever it is made of.
    return Verbatim(text.replace("\n", "\\n"))


def _deadline(pending: PendingRun) -> Cell:
    if pending.deadline is None:
        return "none"
    told = moment(pending.deadline)
    return Styled(f"{told} overdue", "red") if pending.overdue else told


def _notes(transition: Transition) -> Iterator[str]:
    if transition.anomaly:
        yield "breaks the state machine"
    if transition.inferred:
        yield "inferred"
    if transition.answered_by:
        yield f"answered by {transition.answered_by}"
