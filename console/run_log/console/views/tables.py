"""Results for people: the columns of each table, and the lines of each sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, cast

from run_log.console.checks import Check, Verdict
from run_log.core import PauseRequest, RunProgress, RunStatus, Step, StepStatus, Transition, WorkflowRun
from run_log.stores import FailureGroup, PendingRun, StaleRun, TimeBucket, WorkflowStats, WorkflowSummary

from .layout import Cell, Column, Sheet, Styled, Table
from .output import json_text

if TYPE_CHECKING:
    from run_log.projector import DeadLetter, HandledLetter
    from run_log.projector.imports import Reason

# Statuses that are active or need attention. The word is always shown too: nobody depends on a colour.
STYLES: Final[Mapping[RunStatus, str]] = {
    RunStatus.RUNNING: "cyan",
    RunStatus.SUCCESS: "green",
    RunStatus.FAILED: "red",
    RunStatus.PAUSED: "magenta",
}

_STEP_STYLES: Final[Mapping[StepStatus, str]] = {
    StepStatus.RUNNING: "cyan",
    StepStatus.SUCCESS: "green",
    StepStatus.FAILED: "red",
    StepStatus.CANCELLED: "",
}
_MOST_INDENTS: Final = 8

VERDICT_STYLES: Final[Mapping[Verdict, str]] = {
    Verdict.OK: "green",
    Verdict.WRONG: "red",
    Verdict.UNKNOWN: "magenta",
}

# What the model's own dump of a pause does not take at every depth and in every text.
_OBJECTS: Final = {"form", "values"}

_DAY_SECONDS: Final = 86_400.0
_LONGEST_STATUS: Final = max(map(len, RunStatus))
_MILLISECOND: Final = timedelta(milliseconds=1)


def runs_table(runs: Sequence[WorkflowRun], *, workflow_id: str | None = None) -> Table:
    """Return *runs* as a table, in the order given; *workflow_id* is the one that the user asked for."""
    return Table.of(
        runs,
        (Column("run"), lambda run: run.id),
        (Column("status", stays=True), lambda run: status_text(run.status)),
        (Column("started (UTC)"), lambda run: moment(run.started_at)),
        (Column("took", right=True), _run_took),
        (Column("workflow", spare=workflow_id is not None), lambda run: run.workflow_id),
        (Column("error", prose=True), lambda run: run.error or ""),
        title="" if workflow_id is None else f"Runs of {workflow_id}",
    )


def failures_table(groups: Sequence[FailureGroup], *, workflow_id: str | None = None) -> Table:
    """Return groups of failures as a table, in the order given; *workflow_id* is the one asked for."""
    return Table.of(
        groups,
        (Column("newest run"), lambda group: group.newest.id),
        (Column("count", right=True, stays=True, labelled=True), lambda group: str(group.count)),
        (Column("started (UTC)"), lambda group: moment(group.newest.started_at)),
        (Column("workflow", spare=workflow_id is not None), lambda group: group.workflow_id),
        (Column("error", prose=True), _failure),
        title="" if workflow_id is None else f"Failures of {workflow_id}",
    )


def _failure(group: FailureGroup) -> str:
    """Return the text of *group*, with the type of the error where the text does not begin with that."""
    kind = group.error_type or ""
    if not group.text or not kind or group.text.startswith(kind):
        return group.text or kind
    return f"{kind}: {group.text}"


def stale_table(runs: Sequence[StaleRun]) -> Table:
    """Return stale runs as a table, in the order given."""
    return Table.of(
        runs,
        (Column("run"), lambda stale: stale.run.id),
        (Column("status", stays=True), lambda stale: status_text(stale.run.status)),
        (Column("silent for", right=True), lambda stale: elapsed(stale.silence)),
        (Column("heard of (UTC)"), lambda stale: moment(stale.heard_at)),
        (Column("workflow"), lambda stale: stale.run.workflow_id),
    )


def findings_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return findings as a table: the workflow, what was found, two numbers, and a note."""
    workflow, what, first, second, noted = headings
    numbers = (Column(name, right=True, labelled=True) for name in (first, second))
    return Table(
        columns=[Column(workflow), Column(what, stays=True), *numbers, Column(noted, prose=True)], rows=rows
    )


def pending_table(runs: Sequence[PendingRun]) -> Table:
    """Return runs that wait for an answer as a table, in the order given."""
    return Table.of(
        runs,
        (Column("run"), lambda pending: pending.run.id),
        (Column("waits for", right=True), lambda pending: elapsed(pending.age)),
        (Column("deadline (UTC)"), _deadline),
        (Column("assignee"), lambda pending: pending.assignee or "anybody"),
        (Column("workflow"), lambda pending: pending.run.workflow_id),
        (Column("reason", prose=True), lambda pending: pending.reason),
        (Column("choices", prose=True), _offered),
        (Column("version", spare=True), lambda pending: pending.version.text),
    )


def workflows_table(workflows: Sequence[WorkflowStats]) -> Table:
    """Return the counts of workflows as a table, in the order given."""
    return Table.of(
        workflows,
        (Column("workflow"), lambda stats: stats.workflow_id),
        (Column("total", right=True, stays=True, labelled=True), lambda stats: str(stats.total)),
        *map(_count, RunStatus),
        (Column("as of (UTC)", spare=True), lambda stats: moment(stats.as_of)),
    )


def left_out_table(reasons: Iterable[tuple[str, Reason]]) -> Table:
    """Return what an import left out, by reason."""
    return Table.of(
        reasons,
        (Column("left out"), lambda each: each[0]),
        (Column("count", right=True, stays=True), lambda each: str(each[1].count)),
        (Column("first", prose=True, wraps=True), lambda each: "; ".join(each[1].examples)),
    )


def run_sheet(run: WorkflowRun) -> Sheet:
    """Return all of a run."""
    pause = _pause(run.pause) if run.pause else None
    return Sheet(
        rows=[
            # Ids are lines, which are not wrapped, so that they can be copied.
            ("run", [run.id]),
            ("workflow", [run.workflow_id]),
            ("status", status_text(run.status)),
            ("started (UTC)", moment(run.started_at)),
            ("completed (UTC)", moment(run.completed_at)),
            ("took", _run_took(run)),
            ("trigger", str(run.trigger_type)),
            ("labels", "  ".join(f"{key}={value}" for key, value in sorted(run.labels.items()))),
            ("parent", list(run.parent) if run.parent else ""),
            ("trace", run.trace_id or ""),
            ("attempt", str(run.attempt)),
            ("progress", _progress(run.progress)),
            ("error type", run.error_type or ""),
            ("error", run.error or ""),
            ("pause", _json(pause) if pause else ""),
            ("trigger data", _json(run.trigger_data) if run.trigger_data else ""),
            ("result", _json(run.result) if run.result else ""),
        ]
    )


def _pause(pause: PauseRequest) -> dict[str, object]:
    """Return what *pause* has, as JSON."""
    dumped: dict[str, object] = pause.model_dump(mode="json", exclude=_OBJECTS)
    dumped |= {"form": pause.form, "values": pause.values}
    return {name: value for name, value in dumped.items() if value not in (None, [])}


def run_line(run: WorkflowRun) -> Table:
    """Return a run as a table of one row, to be shown without headings."""
    return Table.of(
        [run],
        (Column("started (UTC)"), lambda run: moment(run.started_at)),
        (Column("status"), lambda run: status_text(run.status, width=_LONGEST_STATUS)),
        (Column("run"), lambda run: run.id),
        (Column("workflow"), lambda run: run.workflow_id),
        (Column("error", prose=True), lambda run: run.error or ""),
    )


def summary_view(summary: WorkflowSummary) -> Iterator[Table | Sheet]:
    """Return the summary of a workflow: in all, and by hour or day."""
    durations, rate = summary.durations, summary.success_rate
    percentiles = (durations.p50, durations.p95, durations.p99)
    yield Sheet(
        rows=[
            ("workflow", [summary.workflow_id]),
            ("since (UTC)", "the beginning" if summary.since is None else moment(summary.since)),
            ("runs", str(summary.total)),
            *((status.value, str(count)) for status, count in summary.by_status.items()),
            ("success rate", "" if rate is None else f"{rate:.1%}"),
            ("took on average", _took(durations.mean)),
            ("p50, p95, p99", ", ".join(_took(value) for value in percentiles if value is not None)),
            ("last run", _run_at(summary.last_run)),
            ("last success", _run_at(summary.last_success)),
            ("last failure", _run_at(summary.last_failure)),
            ("as of (UTC)", moment(summary.as_of)),
        ]
    )
    buckets = [bucket for bucket in summary.buckets if bucket.total]
    if buckets:
        yield _buckets_table(buckets)


def _buckets_table(buckets: Sequence[TimeBucket]) -> Table:
    return Table.of(
        buckets,
        (Column("began (UTC)"), lambda bucket: moment(bucket.begins)[:-3]),
        (Column("runs", right=True), lambda bucket: str(bucket.total)),
        (Column("successful", right=True), lambda bucket: str(bucket.by_status.get(RunStatus.SUCCESS, 0))),
        (Column("failed", right=True), lambda bucket: str(bucket.by_status.get(RunStatus.FAILED, 0))),
        (Column("p50", right=True), lambda bucket: _took(bucket.durations.p50)),
        (Column("p95", right=True), lambda bucket: _took(bucket.durations.p95)),
    )


def checks_table(checks: Sequence[Check]) -> Table:
    """Return checks as a table, in the order given. The same finding is shown only once."""
    told: dict[tuple[str, str], str] = {}
    for check in checks:
        told.setdefault((check.found, check.remedy), check.name)
    return Table.of(
        [(check, told[check.found, check.remedy]) for check in checks],
        (Column("check"), lambda row: row[0].name),
        (Column("verdict"), lambda row: Styled(row[0].verdict, VERDICT_STYLES.get(row[0].verdict, ""))),
        (
            Column("found", prose=True, wraps=True),
            lambda row: row[0].found if row[1] == row[0].name else f"as for {row[1]}",
        ),
        (
            Column("what to do", prose=True, wraps=True, labelled=True),
            lambda row: row[0].remedy if row[1] == row[0].name else "",
        ),
    )


def history_table(history: Sequence[Transition]) -> Table:
    """Return a run's history as a table, oldest first."""
    return Table.of(
        history,
        (Column("when (UTC)"), lambda step: moment(step.occurred_at)),
        (Column("status"), lambda step: status_text(step.status)),
        (Column("attempt", right=True), lambda step: str(step.version.attempt)),
        (Column("lasted", right=True), lambda step: _took(step.lasted)),
        (Column("event", spare=True), lambda step: step.version.event_id[-12:]),
        (Column("note", prose=True), lambda step: ", ".join(_notes(step))),
    )


def steps_table(steps: Sequence[Step]) -> Table:
    """Return a run's steps as a table, in the order given; those within another are indented."""
    known = {step.key: step for step in steps}

    def name(step: Step) -> str:
        depth, around = 0, known.get(step.parent or "")
        # Another program may have told of steps that are in each other.
        while around is not None and depth < _MOST_INDENTS:
            depth, around = depth + 1, known.get(around.parent or "")
        return f"{'  ' * depth}{step.name}"

    return Table.of(
        steps,
        (Column("step"), name),
        (Column("status", stays=True), lambda step: Styled(step.status.value, _STEP_STYLES[step.status])),
        (Column("started (UTC)"), lambda step: moment(step.started_at)),
        (
            Column("took", right=True),
            _step_took,
        ),
        (Column("attempt", right=True, spare=True), lambda step: str(step.attempt)),
        (Column("note", prose=True), _step_note),
    )


def _step_took(step: Step) -> str:
    return _took(step.ended_at - step.started_at) if step.ended_at else ""


def _progress(progress: RunProgress | None) -> str:
    if progress is None:
        return ""
    share = "" if progress.fraction is None else f"{progress.fraction:.0%}"
    return "  ".join(filter(None, (share, progress.text)))


def _step_note(step: Step) -> str:
    attributes = [f"{key}={json_text(value)}" for key, value in step.attributes.items()]
    return "  ".join([*([step.error] if step.error else []), *attributes])


def letters_table(letters: Sequence[DeadLetter]) -> Table:
    """Return dead letters as a table, in the order given."""
    return Table.of(
        letters,
        (Column("message id"), lambda letter: letter.message_id),
        (Column("reason"), lambda letter: letter.reason),
        (Column("since (UTC)"), lambda letter: moment(letter.published_at)),
        (Column("workflow"), lambda letter: letter.workflow_id or ""),
        (Column("run"), lambda letter: letter.run_id or ""),
        (Column("error", prose=True), lambda letter: letter.error),
    )


def letter_sheet(letter: DeadLetter) -> Sheet:
    """Return all of a dead letter: its reason, its attributes, its body."""
    attributes = [f"{name} = {value}" for name, value in sorted(letter.attributes.items())]
    left_out = {"attributes": letter.left_out, "bytes of the body's end": letter.cut}
    text = letter.data.decode(errors="backslashreplace")
    return Sheet(
        rows=[
            ("dead letter", [letter.message_id]),
            ("since (UTC)", moment(letter.published_at)),
            ("reason", letter.reason),
            ("error", letter.error),
            ("workflow", [letter.workflow_id or ""]),
            ("run", [letter.run_id or ""]),
            ("original message", letter.original_id or ""),
            ("deliveries", str(letter.delivery_attempt or "")),
            ("attributes", attributes),
            ("left out", ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count)),
            ("bytes", f"{len(letter.data):,}"),
            ("body", [text] if letter.body is None else _json(letter.body)),
        ]
    )


def handled_table(letters: Sequence[HandledLetter], *, dry_run: bool) -> Table:
    """Return what became of dead letters, or in a dry run would become of them, as a table."""
    return Table.of(
        letters,
        (Column("message id"), lambda handled: handled.letter.message_id),
        (Column("would be" if dry_run else "outcome", stays=True), lambda handled: handled.outcome.value),
        (Column("reason"), lambda handled: handled.letter.reason),
        (Column("workflow"), lambda handled: handled.letter.workflow_id or ""),
        (Column("run"), lambda handled: handled.letter.run_id or ""),
        (Column("why", prose=True), lambda handled: handled.why),
    )


def status_text(status: RunStatus, *, width: int = 0) -> Styled:
    """Return *status* in its colour, padded to *width* columns."""
    return Styled(status.value.ljust(width), STYLES.get(status, ""))


def moment(value: datetime | None) -> str:
    """Return *value* in UTC, to the second; an empty text for None."""
    return "" if value is None else value.replace(tzinfo=None).isoformat(" ", "seconds")


def took(milliseconds: float) -> str:
    """Return a duration in the unit that suits it; any float has a form."""
    if not math.isfinite(milliseconds):
        return f"{milliseconds} ms"
    if milliseconds < 0:
        return f"-{took(-milliseconds)}"
    seconds = milliseconds / 1_000
    if seconds < 1:
        return f"{milliseconds:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 60 else _clock(seconds)  # noqa: PLR2004 - a minute


def elapsed(value: timedelta) -> str:
    """Return *value* in days, hours, minutes and whole seconds."""
    return _clock(value.total_seconds())


def _clock(seconds: float) -> str:
    if seconds < 0:
        return f"-{_clock(-seconds)}"
    days, rest = divmod(seconds, _DAY_SECONDS)
    if days > timedelta.max.days:
        return f"{days:.3g} days"
    clock = str(timedelta(seconds=int(rest)))
    return f"{days:.0f}d {clock:0>8}" if days else clock


def _run_took(run: WorkflowRun) -> str:
    return took(run.duration_ms) if run.status.is_terminal else ""


def _count(status: RunStatus) -> tuple[Column, Callable[[WorkflowStats], Cell]]:
    column = Column(status.value, right=True, stays=True, labelled=True)
    return column, lambda stats: str(stats.by_status.get(status, 0) or "")


def _took(value: timedelta | None) -> str:
    return "" if value is None else took(value / _MILLISECOND)


def _run_at(run: WorkflowRun | None) -> str:
    return "none" if run is None else f"{run.id} at {moment(run.started_at)}"


def _json(value: object) -> list[str]:
    return json_text(value, indent=2, ascii_only=False).split("\n")


def _offered(pending: PendingRun) -> str:
    """Return what can be chosen, the default marked, and the names of what is filled in."""
    marks = {pending.default_choice: " (default)"}
    chosen = [f"{choice}{marks.get(choice, '')}" for choice in pending.choices]
    named: object = (pending.form or {}).get("properties")
    fields = [f"{name}=" for name in cast("dict[str, object]", named)] if isinstance(named, dict) else []
    return ", ".join([*chosen, *fields])


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
    if transition.choice:
        yield f"chose {transition.choice}"
    for name, value in (transition.values or {}).items():
        yield f"{name}={json_text(value)}"
    if transition.comment:
        yield transition.comment
