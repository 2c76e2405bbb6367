"""What a source finds: a run as an event, or what is left out and why."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from run_log.core import InvalidRunError, RunEvent, RunStatus, Step, WorkflowRun
from run_log.core.clock import micros_of
from run_log.core.fields import LABEL_HINT
from run_log.core.law import run_digest
from run_log.core.logs import caught_events
from run_log.core.models import snapshot
from run_log.core.payload import encode_json

from .errors import LeftOut

Redact = Callable[[WorkflowRun], None]
"""Replaces the secrets of a run, which nobody else holds."""

# Of one moment, the later stage of a run's life is the later version, and none is later than the moment.
_MICROS_BEFORE: Final = {RunStatus.PENDING: 3, RunStatus.RUNNING: 2, RunStatus.PAUSED: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One row or document of a source."""

    place: str
    """Where it is, such as ``line 17``."""
    what: RunEvent | LeftOut
    """The run, or why it is left out."""
    record: object = None
    """What the source has there, for the rejects; bytes are kept as they are. Of a run it is not needed."""
    size: int = 0
    """How many characters it was read from, where a file may have any number of them."""
    without: tuple[str, ...] = ()
    """What of the run cannot be read, though the run itself can, or what was assumed to read it."""


_NOT_KEPT: Final = {
    "run_log_labels_left_out": f"runs with labels that cannot be kept ({LABEL_HINT})",
    "run_log_parent_left_out": "runs with a parent that names no run",
    "run_log_pause_left_out": "runs with parts of a pause that cannot be offered or answered",
    "run_log_payload_cut": "runs with values that are too large, which are cut",
}
"""What the log says of one run, in the words that count it: an import may have millions."""


def imported_event(
    fields: Mapping[str, Any], without: list[str], *, steps: Sequence[Step] = (), redact: Redact
) -> RunEvent:
    """Return the event that a run of another system is in this state. Its times are aware datetimes.

    Its version is the newest moment that the run names, so that whatever run-log itself has recorded at that
    moment or later beats it. Its identity is a digest of the run's content: the same state is the same event,
    whatever it was read from, and how often. What of it cannot be kept is added to *without*.

    Raises:
        LeftOut: *fields* are not those of a run.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if "completed_at" in given and "duration_ms" not in given:
        given["duration_ms"] = max(given["completed_at"] - given["started_at"], timedelta(0))
    told = list[str]()
    try:
        with caught_events(told):
            run = snapshot(given)
    except InvalidRunError as error:
        raise LeftOut("it is not a run", str(error).partition("is not a run: ")[2]) from error
    without += (_NOT_KEPT.get(event, event) for event in dict.fromkeys(told))
    redact(run)
    moment = max(run.started_at, run.completed_at or run.started_at)
    content = encode_json([*run.key, run.attempt, run.status.value, run_digest(run)])
    # Without validation: each field is one that was checked here, and there are many runs.
    return RunEvent.model_construct(
        # It sorts before every UUID: of one microsecond, what run-log recorded is the later version.
        event_id=f"!import-{hashlib.blake2b(content.encode(), digest_size=16).hexdigest()}",
        hlc=max(micros_of(moment) - _MICROS_BEFORE.get(run.status, 0), 0),
        occurred_at=moment,
        run=run,
        steps=tuple(steps),
    )
