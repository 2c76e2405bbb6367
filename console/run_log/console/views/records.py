"""Results as JSON for programs: times are ISO 8601 in UTC, durations are milliseconds."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from run_log.core import RunStatus, Transition, WorkflowRun
from run_log.core.counters import Durations
from run_log.stores import FailureGroup, PendingRun, RunUpdate, StaleRun, WorkflowStats, WorkflowSummary

if TYPE_CHECKING:
    from run_log.projector import DeadLetter, HandledLetter

_MILLISECOND: Final = timedelta(milliseconds=1)

# They hold JSON already, and the model's own dump does not take every depth and every text.
_LEFT_AS_THEY_ARE: Final[Any] = {
    "trigger_data": True,
    "result": True,
    "pause": {"form": True, "values": True},
}


def run_record(run: WorkflowRun) -> dict[str, Any]:
    """Return *run* as JSON."""
    dumped = run.model_dump(mode="json", exclude=_LEFT_AS_THEY_ARE)
    if run.pause is not None:
        dumped["pause"] |= {"form": run.pause.form, "values": run.pause.values}
    return {name: dumped[name] if name in dumped else getattr(run, name) for name in type(run).model_fields}


def failure_record(group: FailureGroup) -> dict[str, Any]:
    """Return a group of failures as JSON."""
    return {
        "workflow_id": group.workflow_id,
        "error_type": group.error_type,
        "text": group.text,
        "count": group.count,
        # Its payloads are not read.
        "newest": {
            name: value
            for name, value in run_record(group.newest).items()
            if name not in ("trigger_data", "result")
        },
    }


def pending_record(pending: PendingRun) -> dict[str, Any]:
    """Return a run that waits for an answer as JSON."""
    return {
        **run_record(pending.run),
        "paused_at": moment(pending.paused_at),
        "age_ms": _milliseconds(pending.age),
        "overdue": pending.overdue,
        "version": pending.version.text,
    }


def stale_record(stale: StaleRun) -> dict[str, Any]:
    """Return a stale run as JSON."""
    return {
        **run_record(stale.run),
        "heard_at": moment(stale.heard_at),
        "silence_ms": _milliseconds(stale.silence),
    }


def update_record(update: RunUpdate) -> dict[str, Any]:
    """Return a change of a run as JSON, with the cursor to continue after it."""
    return {**run_record(update.run), "cursor": update.cursor}


def transition_record(transition: Transition) -> dict[str, Any]:
    """Return one transition of a history as JSON."""
    return {
        "status": transition.status.value,
        "occurred_at": moment(transition.occurred_at),
        "lasted_ms": _milliseconds(transition.lasted),
        "attempt": transition.attempt,
        "event_id": transition.version.event_id,
        "inferred": transition.inferred,
        "anomaly": transition.anomaly,
        "answered_by": transition.answered_by,
        "choice": transition.choice,
        "values": transition.values,
        "comment": transition.comment,
        "version": transition.version.text,
    }


def workflow_record(stats: WorkflowStats) -> dict[str, Any]:
    """Return a workflow's counts as JSON."""
    return {
        "workflow_id": stats.workflow_id,
        "total": stats.total,
        "successful": stats.successful,
        "by_status": _by_status(stats.by_status),
        "as_of": moment(stats.as_of),
    }


def summary_record(summary: WorkflowSummary) -> dict[str, Any]:
    """Return the summary of a workflow as JSON."""
    return {
        "workflow_id": summary.workflow_id,
        "since": moment(summary.since),
        "total": summary.total,
        "by_status": _by_status(summary.by_status),
        "success_rate": summary.success_rate,
        "durations": _durations(summary.durations),
        "buckets": [
            {
                "begins": moment(bucket.begins),
                "width_ms": _milliseconds(bucket.width),
                "total": bucket.total,
                "by_status": _by_status(bucket.by_status),
                "durations": _durations(bucket.durations),
            }
            for bucket in summary.buckets
        ],
        "last_run": summary.last_run and run_record(summary.last_run),
        "last_success": summary.last_success and run_record(summary.last_success),
        "last_failure": summary.last_failure and run_record(summary.last_failure),
        "as_of": moment(summary.as_of),
    }


def letter_line(letter: DeadLetter) -> dict[str, Any]:
    """Return a dead letter as JSON, without attributes and body."""
    return {
        "message_id": letter.message_id,
        "published_at": moment(letter.published_at),
        "reason": letter.reason,
        "error": letter.error,
        "workflow_id": letter.workflow_id,
        "run_id": letter.run_id,
        "original_message_id": letter.original_id,
    }


def letter_record(letter: DeadLetter) -> dict[str, Any]:
    """Return all of a dead letter as JSON: its body parsed, if it is JSON, and in base64."""
    return {
        **letter_line(letter),
        "delivery_attempt": letter.delivery_attempt,
        "attributes_left_out": letter.left_out,
        **({"body_bytes_left_out": letter.cut} if letter.cut else {}),
        "attributes": dict(letter.attributes),
        "body": letter.body,
        "data_base64": base64.b64encode(letter.data).decode("ascii"),
    }


def handled_record(handled: HandledLetter, *, dry_run: bool) -> dict[str, Any]:
    """Return what became of a dead letter, or in a dry run would become of it, as JSON."""
    letter = handled.letter
    return {
        "message_id": letter.message_id,
        "outcome": handled.outcome.value,
        "why": handled.why or None,
        "dry_run": dry_run,
        "reason": letter.reason,
        "workflow_id": letter.workflow_id,
        "run_id": letter.run_id,
    }


def _durations(durations: Durations) -> dict[str, Any]:
    measures = {"mean": durations.mean, "p50": durations.p50, "p95": durations.p95, "p99": durations.p99}
    return {
        "count": durations.count,
        **{f"{name}_ms": _milliseconds(value) for name, value in measures.items()},
    }


def _by_status(counts: Mapping[RunStatus, int]) -> dict[str, int]:
    return {status.value: count for status, count in counts.items()}


def moment(value: datetime | None) -> str | None:
    """Return *value* as JSON."""
    return None if value is None else value.isoformat().replace("+00:00", "Z")


def _milliseconds(value: timedelta | None) -> float | None:
    return None if value is None else value / _MILLISECOND
