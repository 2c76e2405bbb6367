"""Runs that have been silent for long: how they are found, and how they are marked as lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from run_log.core import RunEvent, RunStatus, WorkflowRun
from run_log.core.json_form import duration_json, time_json
from run_log.core.payload import encode_json
from run_log.stores.stored.fields import ACTIVE_SINCE
from run_log.stores.stored.reading import StoredRun

LOST: Final = "lost"
"""How the error of a run that was marked as lost begins."""

ACTIVE: Final = frozenset({RunStatus.PENDING, RunStatus.RUNNING})
"""Statuses of a run that is under way, and waits for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleRun:
    """A run that is recorded as under way, and has been silent for long."""

    run: WorkflowRun
    heard_at: datetime
    """When its newest event happened, on its emitter's clock, in UTC."""
    silence: timedelta
    """How long ago that was."""

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON, and with it when it was heard of, and for how long it has been silent."""
        return {
            **self.run.to_json(),
            "heard_at": time_json(self.heard_at),
            "silence_ms": duration_json(self.silence),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleSelection:
    """Which runs are stale. They come by when they were heard of, the longest silent first."""

    before: datetime
    """Runs whose newest event is older than this are stale; in UTC."""
    workflow_id: str | None = None
    """Of which workflow; None is any."""
    scope: ClassVar[str] = "stale"
    sorted_by: ClassVar[str] = ACTIVE_SINCE
    """What of the projection map they come by."""
    newest_first: ClassVar[bool] = False

    def is_wanted(self, run: WorkflowRun) -> bool:
        """Return whether *run*, which an index has found, is among them: it is."""
        del run
        return True

    def includes(self, projection: Mapping[str, Any]) -> bool:
        """Return whether a run with this projection map is stale, whatever its workflow."""
        return ACTIVE_SINCE in projection and projection[ACTIVE_SINCE] < self.before

    @property
    def text(self) -> str:
        """What tells a listing of them from others."""
        # The moment moves while somebody walks: who has become stale meanwhile comes last.
        return encode_json([self.workflow_id])


def lost(stored: StoredRun, now: datetime) -> RunEvent:
    """Return the event that a run was lost, concluded *now* from its silence: any real event beats it.

    The run is taken to have ended with its newest event.

    Raises:
        WriteRefusedError: Nothing can come after that.
    """
    run, heard_at = stored.run, stored.occurred_at
    ended_at = max(heard_at, run.started_at)
    changes = {
        "status": RunStatus.FAILED,
        "error": f"{LOST}: nothing was heard of it since {heard_at.isoformat()}",
        "completed_at": ended_at,
        "duration_ms": (ended_at - run.started_at) / timedelta(milliseconds=1),
    }
    return stored.concluded(changes, now, what="marked as lost")
