"""Plain values for the unit tests of the core."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any, Final

from run_log.core import Message, RunEvent, RunStatus, TriggerType, WorkflowRun
from run_log.core.wire import EVENT_TYPE

NOON: Final = datetime(2026, 3, 4, 12, tzinfo=UTC)


def run_fields(**changes: Any) -> dict[str, Any]:
    """Return a run's fields, all that are required and *changes*."""
    fields: dict[str, Any] = {
        "id": "r1",
        "workflow_id": "w1",
        "status": RunStatus.RUNNING,
        "trigger_type": TriggerType.MANUAL,
        "started_at": NOON,
    }
    return {**fields, **changes}


def make_run(**changes: Any) -> WorkflowRun:
    """Return a run."""
    return WorkflowRun(**run_fields(**changes))


def make_event(number: int = 1, **changes: Any) -> RunEvent:
    """Return the event of identity *number*; at clock reading *number* unless *changes* say otherwise."""
    own: dict[str, Any] = {
        name: changes.pop(name)
        for name in ("event_id", "hlc", "occurred_at", "inferred", "traceparent", "tracestate")
        if name in changes
    }
    fields: dict[str, Any] = {"event_id": f"e{number:03}", "hlc": number, "occurred_at": NOON, **own}
    return RunEvent(**fields, run=make_run(**changes))


def body(**changes: Any) -> dict[str, Any]:
    """Return a v1 body as JSON types; *changes* replace its fields."""
    run = json.loads(make_run().model_dump_json())
    fields = {
        "type": EVENT_TYPE,
        "event_id": "e1",
        "hlc": 7,
        "occurred_at": "2026-03-04T12:00:00Z",
        "run": run,
    }
    return {**fields, **changes}


def v0_body(**changes: Any) -> dict[str, Any]:
    """Return a v0 body, a bare run, as JSON types; *changes* replace its fields."""
    return {"type": "run-log.run-state.v0", **json.loads(make_run().model_dump_json()), **changes}


def message(content: object, **attributes: str) -> Message:
    """Return a message whose body is *content*: bytes as they are, anything else as JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Message(data=data, attributes=attributes)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in a fresh interpreter and return what it printed; a failure raises."""
    return subprocess.run(  # noqa: S603 - our own interpreter on our own text
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
