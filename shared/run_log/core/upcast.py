"""Older event bodies, raised one schema version at a time by pure functions."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, cast

from .errors import EventDecodeError

SCHEMA_MAJOR: Final = 1
"""The major schema version that this code writes."""

_V0_NAMESPACE: Final = uuid.UUID("5f2c1c7e-2a43-5d0b-9d51-3f0d6f7f9a10")

# The v0 body says when a run started and ended, not when it was pending or paused: within one moment the
# later stage of a run's life is the later version.
_V0_STAGE: Final[Mapping[str, int]] = {"pending": 0, "running": 1, "paused": 2}
_V0_ENDED: Final = 3

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


def run_dump_to_event(body: dict[str, Any]) -> dict[str, Any]:
    """Raise v0, a bare run as its platform dumped it, to v1, an event around it.

    A bare run has neither an identity nor a version. Both are derived from its content, so the same dump
    delivered twice is the same event, and an ended run is later than the same run started.

    Args:
        body: ``{"type": "run-log.run-state.v0", "id": ..., "workflow_id": ..., "status": ..., ...}``.

    Raises:
        EventDecodeError: There is no moment to derive the version from.
    """
    run = {key: value for key, value in body.items() if key != "type"}
    moments = [_micros(run[name]) for name in ("started_at", "completed_at") if run.get(name)]
    if not moments:
        raise EventDecodeError("a v0 body needs started_at", reason="invalid_event")
    content = json.dumps(run, sort_keys=True, separators=(",", ":"))
    newest = max(moments)
    return {
        "type": "run-log.run-state.v1",
        "event_id": str(uuid.uuid5(_V0_NAMESPACE, content)),
        "hlc": newest + _V0_STAGE.get(str(run.get("status")), _V0_ENDED),
        "occurred_at": run.get("completed_at") or run["started_at"],
        "inferred": False,
        "run": run,
    }


def _micros(moment: object) -> int:
    try:
        parsed = datetime.fromisoformat(cast("str", moment))
        return int(parsed.timestamp() * 1_000_000)
    except (TypeError, ValueError, OverflowError) as error:
        what = f"{moment!r:.200} is not an ISO 8601 datetime"
        raise EventDecodeError(what, reason="invalid_event") from error


UPCASTERS: Final[Mapping[int, Upcaster]] = {0: run_dump_to_event}
"""From each older major version to the next one."""
