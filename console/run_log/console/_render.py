"""Tables for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from run_log.core import RunStatus, Transition, WorkflowRun
from run_log.stores import PendingRun, StaleRun, TimeBucket, WorkflowStats, WorkflowSummary

from ._checks import Check, Verdict

if TYPE_CHECKING:
    from run_log.projector import DeadLetter, HandledLetter

STYLES: Final[Mapping[RunStatus, str]] = {
    RunStatus.PENDING: "dim",
    RunStatus.RUNNING: "blue",
    RunStatus.SUCCESS: "green",
    RunStatus.FAILED: "red",
    RunStatus.SKIPPED: "yellow",
    RunStatus.PAUSED: "magenta",
}


VERDICT_STYLES: Final[Mapping[Verdict, str]] = {
    Verdict.OK: "green",
    Verdict.WRONG: "red",
    Verdict.UNKNOWN: "yellow",
    Verdict.SKIPPED: "dim",
}


def runs_table(runs: Sequence[WorkflowRun]) -> Table:
    """Return *runs* as a table, in the order given."""
    table = _table("Runs, newest first")
    for heading in ("workflow", "run", "status", "started (UTC)"):
        table.add_column(heading, no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("error")
    for run in runs:
        table.add_row(
            literal(run.workflow_id),
            literal(run.id),
            status_text(run.status),
            moment(run.started_at),
            _took(timedelta(milliseconds=run.duration_ms)) if run.status.is_terminal else "",
            literal(run.error or ""),
        )
    return table


def stats_table(stats: Mapping[str, Mapping[str, int]]) -> Table:
    """Return each workflow's stats as a table."""
    table = _table("Stats")
    table.add_column("workflow")
    table.add_column("total", justify="right")
    table.add_column("successful", justify="right")
    for workflow_id, counts in stats.items():
        table.add_row(literal(workflow_id), str(counts["total"]), str(counts["successful"]))
    return table


def inbox_table(runs: Sequence[WorkflowRun]) -> Table:
    """Return paused runs as the inbox of those who have to answer."""
    table = _table("Waiting for a human")
    for heading in ("workflow", "run", "reason", "assignee", "deadline (UTC)"):
        table.add_column(heading)
    for run in runs:
        pause = run.pause
        table.add_row(
            literal(run.workflow_id),
            literal(run.id),
            literal(pause.reason if pause else ""),
            literal((pause.assignee if pause else None) or "anybody"),
            moment(pause.deadline) if pause and pause.deadline else "none",
        )
    return table


def stale_table(runs: Sequence[StaleRun]) -> Table:
    """Return runs that nothing was heard of for long as a table, in the order given."""
    table = _table("Not heard of for long")
    for heading in ("workflow", "run", "status", "heard of (UTC)"):
        table.add_column(heading, no_wrap=True)
    table.add_column("silent for", justify="right", no_wrap=True)
    for stale in runs:
        table.add_row(
            literal(stale.run.workflow_id),
            literal(stale.run.id),
            status_text(stale.run.status),
            moment(stale.heard_at),
            elapsed(stale.silence),
        )
    return table


def findings_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return what is not as it has to be as a table: the third and fourth columns are numbers."""
    table = _table("Findings")
    for number, heading in enumerate(headings):
        table.add_column(
            heading, justify="right" if number in (2, 3) else "left", no_wrap=number < len(headings) - 1
        )
    for cells in rows:
        table.add_row(*map(literal, cells))
    return table


def pending_table(runs: Sequence[PendingRun]) -> Table:
    """Return runs that wait for an answer as a table, in the order given."""
    table = _table("Waiting for an answer")
    for heading in ("workflow", "run", "reason", "assignee", "deadline (UTC)"):
        table.add_column(heading, no_wrap=heading != "reason")
    table.add_column("waits for", justify="right", no_wrap=True)
    for pending in runs:
        deadline = "none" if pending.deadline is None else moment(pending.deadline)
        table.add_row(
            literal(pending.run.workflow_id),
            literal(pending.run.id),
            literal(pending.reason),
            literal(pending.assignee or "anybody"),
            Text(f"{deadline} overdue", style="red") if pending.overdue else deadline,
            elapsed(pending.age),
        )
    return table


def workflows_table(workflows: Sequence[WorkflowStats]) -> Table:
    """Return the counts of workflows as a table, in the order given."""
    table = _table("Workflows")
    table.add_column("workflow", no_wrap=True)
    table.add_column("total", justify="right")
    for status in RunStatus:
        table.add_column(status_text(status), justify="right")
    table.add_column("as of (UTC)", no_wrap=True)
    for stats in workflows:
        table.add_row(
            literal(stats.workflow_id),
            str(stats.total),
            *(str(stats.by_status.get(status, 0) or "") for status in RunStatus),
            "" if stats.as_of is None else moment(stats.as_of),
        )
    return table


def run_sheet(run: WorkflowRun) -> Table:
    """Return all of a run."""
    sheet = _sheet(f"Run {run.id}")
    rows: dict[str, Text | str] = {
        "workflow": literal(run.workflow_id),
        "status": status_text(run.status),
        "started (UTC)": moment(run.started_at),
        "trigger": run.trigger_type.value,
        "attempt": str(run.attempt),
    }
    if run.completed_at is not None:
        rows["completed (UTC)"] = moment(run.completed_at)
    if run.status.is_terminal:
        rows["took"] = _took(timedelta(milliseconds=run.duration_ms))
    if run.error:
        rows["error"] = literal(run.error)
    if run.pause is not None:
        rows["pause"] = literal(json.dumps(run.pause.model_dump(mode="json", exclude_none=True), indent=2))
    for name in ("trigger_data", "result"):
        if payload := getattr(run, name):
            rows[name.replace("_", " ")] = literal(json.dumps(payload, indent=2, ensure_ascii=False))
    for heading, value in rows.items():
        sheet.add_row(heading, value)
    return sheet


def run_line(run: WorkflowRun) -> Text:
    """Return a run on one line."""
    parts = [Text(moment(run.started_at)), status_text(run.status), literal(f"{run.workflow_id} {run.id}")]
    if run.error:
        parts.append(literal(run.error.replace("\n", " ")))
    return Text("  ").join(parts)


def summary_sheet(summary: WorkflowSummary) -> Group:
    """Return a workflow at a glance: what there is in all, and by hour or day."""
    sheet = _sheet(f"Workflow {summary.workflow_id}")
    durations, rate = summary.durations, summary.success_rate
    rows: dict[str, Text | str] = {
        "since (UTC)": "the beginning" if summary.since is None else moment(summary.since),
        "runs": str(summary.total),
        **{status.value: str(count) for status, count in summary.by_status.items()},
        "success rate": "" if rate is None else f"{rate:.1%}",
        "took on average": _took(durations.mean),
        "p50, p95, p99": ", ".join(map(_took, (durations.p50, durations.p95, durations.p99))),
    }
    lasts = {
        "last run": summary.last_run,
        "last success": summary.last_success,
        "last failure": summary.last_failure,
    }
    for name, run in lasts.items():
        rows[name] = "none" if run is None else literal(f"{run.id} at {moment(run.started_at)}")
    rows["as of (UTC)"] = "" if summary.as_of is None else moment(summary.as_of)
    for heading, value in rows.items():
        sheet.add_row(heading, value)
    return Group(sheet, buckets_table(summary.buckets))


def buckets_table(buckets: Sequence[TimeBucket]) -> Table:
    """Return the hours or days in which runs started as a table, the oldest first, without empty ones."""
    table = _table("By when they started")
    table.add_column("begins (UTC)", no_wrap=True)
    for heading in ("runs", "successful", "failed", "p50", "p95"):
        table.add_column(heading, justify="right", no_wrap=True)
    for bucket in buckets:
        if bucket.total:
            table.add_row(
                bucket.begins.strftime("%Y-%m-%d %H:%M"),
                str(bucket.total),
                str(bucket.by_status.get(RunStatus.SUCCESS, 0)),
                str(bucket.by_status.get(RunStatus.FAILED, 0)),
                _took(bucket.durations.p50),
                _took(bucket.durations.p95),
            )
    return table


def checks_table(checks: Sequence[Check]) -> Table:
    """Return what was looked at as a table, in the order given."""
    table = _table("What is deployed")
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("found")
    table.add_column("what to do")
    for check in checks:
        verdict = Text(check.verdict.value, style=VERDICT_STYLES[check.verdict])
        table.add_row(check.name, verdict, literal(check.found), literal(check.remedy))
    return table


def history_table(run_id: str, history: Sequence[Transition]) -> Table:
    """Return a run's history as a table, oldest first."""
    table = _table(f"History of {run_id}")
    for heading in ("when (UTC)", "status", "attempt", "event"):
        table.add_column(heading, no_wrap=True)
    table.add_column("lasted", justify="right", no_wrap=True)
    table.add_column("note")
    for transition in history:
        notes = [
            *(["breaks the state machine"] if transition.anomaly else []),
            *(["inferred"] if transition.inferred else []),
            *([f"answered by {transition.answered_by}"] if transition.answered_by else []),
        ]
        table.add_row(
            moment(transition.occurred_at),
            status_text(transition.status),
            str(transition.version.attempt),
            literal(transition.version.event_id[-12:]),
            _took(transition.lasted),
            literal(", ".join(notes)),
        )
    return table


def letters_table(letters: Sequence[DeadLetter]) -> Table:
    """Return dead letters as a table, in the order given."""
    table = _table("Dead letters")
    for heading in ("since (UTC)", "message id"):
        table.add_column(heading, no_wrap=True)
    for heading in ("reason", "workflow", "run", "error"):
        table.add_column(heading, overflow="fold")
    for letter in letters:
        table.add_row(
            "" if letter.published_at is None else moment(letter.published_at),
            literal(letter.message_id),
            literal(letter.reason),
            literal(letter.workflow_id or ""),
            literal(letter.run_id or ""),
            literal(letter.error),
        )
    return table


def letter_sheet(letter: DeadLetter) -> Table:
    """Return all of a dead letter: why it is here, its attributes, its body."""
    sheet = _sheet(f"Dead letter {letter.message_id}")
    body = letter.body
    rows = {
        "since (UTC)": "" if letter.published_at is None else moment(letter.published_at),
        "reason": letter.reason,
        "error": letter.error,
        "workflow": letter.workflow_id or "",
        "run": letter.run_id or "",
        "original message": letter.original_id or "",
        "deliveries": str(letter.delivery_attempt or ""),
        "attributes": "\n".join(f"{name} = {value}" for name, value in sorted(letter.attributes.items())),
        "left out": f"{letter.left_out} attributes" if letter.left_out else "",
        "bytes": f"{len(letter.data):,}",
        "body": letter.data.decode(errors="backslashreplace")
        if body is None
        else json.dumps(body, indent=2, ensure_ascii=False),
    }
    for heading, value in rows.items():
        if value:
            sheet.add_row(heading, literal(value))
    return sheet


def handled_table(letters: Sequence[HandledLetter], *, dry_run: bool) -> Table:
    """Return what became of dead letters as a table, in the order given; or what would in a dry run."""
    table = _table("What would become of dead letters" if dry_run else "What became of dead letters")
    table.add_column("message id", no_wrap=True)
    for heading in ("reason", "workflow", "run", "outcome", "why"):
        table.add_column(heading, overflow="fold")
    for handled in letters:
        letter = handled.letter
        table.add_row(
            literal(letter.message_id),
            literal(letter.reason),
            literal(letter.workflow_id or ""),
            literal(letter.run_id or ""),
            handled.outcome.value,
            literal(handled.why),
        )
    return table


def literal(value: str, *, style: str = "") -> Text:
    """Return *value* to be shown as it is: no markup, and nothing in it commands the terminal."""
    shown = (
        letter if letter.isprintable() or letter == "\n" else ascii(letter).strip("'") for letter in value
    )
    return Text("".join(shown), style=style)


def status_text(status: RunStatus) -> Text:
    """Return *status* in its colour; the word says it too."""
    return Text(status.value, style=STYLES[status])


def moment(value: datetime) -> str:
    """Return *value*, in UTC, to the millisecond."""
    return value.strftime("%Y-%m-%d %H:%M:%S.") + f"{value.microsecond // 1_000:03d}"


def elapsed(value: timedelta) -> str:
    """Return *value* in days, hours, minutes and whole seconds."""
    return str(timedelta(seconds=int(value.total_seconds())))


def _took(value: timedelta | None) -> str:
    if value is None:
        return ""
    if value < timedelta(seconds=1):
        return f"{value / timedelta(milliseconds=1):.1f} ms"
    return f"{value.total_seconds():.2f} s" if value < timedelta(minutes=1) else elapsed(value)


def _sheet(title: str) -> Table:
    sheet = _table(title)
    sheet.show_header = False
    sheet.add_column(style="bold", no_wrap=True)
    sheet.add_column(overflow="fold")
    return sheet


def _table(title: str) -> Table:
    return Table(
        title=literal(title, style="table.title"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
