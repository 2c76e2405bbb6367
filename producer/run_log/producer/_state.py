"""What of a run's state can be recorded. The rest is left out, and logged."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, cast

from run_log.core import PauseRequest, RunStatus, WorkflowRun
from run_log.core.forms import values_fault
from run_log.core.ids import MAX_ID_BYTES, as_text, bounded_id, id_text
from run_log.core.logs import get_logger
from run_log.core.models import validated
from run_log.core.nearest import OUTER_KEY, Contained, is_foreign

from ._failure import name_and_text

_REQUIRED: Final = ("id", "workflow_id", "status", "trigger_type", "started_at")
_OPTIONAL: Final = frozenset({"trigger_data", "result", "pause", "error", "attempt"})
_logger: Final = get_logger("run_log.producer")


def usable(state: dict[str, Any]) -> object:
    """Return the run that *state* is, without the values that cannot be recorded, which are logged once.

    They leave *state* too. It is returned itself where a value is in the way, or where it is no run.
    """
    with Contained():
        run = validated(state)
        for name in ("trigger_data", "result"):
            held = getattr(run, name)
            if held.get(OUTER_KEY) is state.get(name, held):
                state[name] = held  # so that the missing keys are logged once
        # Likewise what cannot be a label or a parent, or be offered by a pause.
        state |= {"labels": run.labels, "parent": run.parent, "pause": run.pause and dict(run.pause)}
        return run
    required = {name: state[name] for name in _REQUIRED}
    if _fault(required) is not None:
        return state  # no run: the emitter counts it and logs why
    for name in _OPTIONAL & state.keys():
        fault = _fault({**required, name: state[name]})
        if fault is not None:
            _leave_out(state, name, required)
            _logger.error(
                "run_log_value_not_recorded",
                workflow_id=state["workflow_id"],
                run_id=state["id"],
                field=name,
                error=fault,
            )
    return state


def answered(state: Mapping[str, Any], answer: Mapping[str, object]) -> dict[str, Any]:
    """Return the pause of *state* with an *answer* to it, without what it does not ask for, which is logged.

    Args:
        state: The run's state.
        answer: Who answered, a comment, what was chosen and what was filled in, by a pause's names.
    """
    asked: Mapping[str, Any] = state.get("pause") or {}
    pause = {**asked, **answer}
    with Contained():
        required = {name: state[name] for name in _REQUIRED}
        read = validated({**required, "pause": pause}).pause or PauseRequest()
        faults: dict[str, str] = {}
        if answer["choice"] is not None and read.choice not in read.choices:
            faults["choice"] = "it is none of the choices"
        if read.values and read.form and (fault := values_fault(read.form, read.values)):
            faults["values"] = fault
        for field, cause in faults.items():
            _logger.warning(
                "run_log_pause_left_out",
                workflow_id=state["workflow_id"],
                run_id=state["id"],
                field=field,
                cause=cause,
            )
        return dict(read) | dict.fromkeys(faults)
    return pause


def _leave_out(state: dict[str, Any], name: str, required: Mapping[str, object]) -> None:
    """Drop the field *name*; of a pause only the deadline, if that is what is wrong."""
    value: Any = state.pop(name)
    if name == "pause":
        undated: dict[str, Any] = {**value, "deadline": None}
        if _fault({**required, name: undated}) is None:
            state[name] = undated


def _fault(state: Mapping[str, object]) -> str | None:
    """Return why *state* is no run, or None if it is one."""
    try:
        validated(state)
    except BaseException as error:  # the values' own code may raise anything
        if not is_foreign(error):
            raise
        return name_and_text(error)
    return None


def only_begun(run: WorkflowRun) -> WorkflowRun:
    """Return the least that can be said of *run*, for an event whose steps alone are news."""
    return run.model_copy(
        update={
            "status": RunStatus.RUNNING,
            "attempt": 1,
            "trigger_data": {},
            "result": {},
            "pause": None,
            "error": None,
            "error_type": None,
            "progress": None,
            "completed_at": None,
            "duration_ms": 0.0,
        }
    )


def heartbeat_seconds(heartbeat: object, least: float, workflow_id: str, run_id: str) -> float | None:
    """Return the seconds of a heartbeat; None, which is logged, where it is no duration."""
    if heartbeat is None:
        return None
    seconds = 0.0
    with Contained():  # it may be anything, and isinstance would run its code
        seconds = timedelta.total_seconds(cast("timedelta", heartbeat))
    if seconds > 0:
        return max(seconds, least)
    _logger.warning(
        "run_log_heartbeat_left_out",
        workflow_id=workflow_id,
        run_id=run_id,
        hint=f"heartbeat is {as_text(heartbeat):.100}; pass a timedelta above 0",
    )
    return None


def own_id(name: str, value: object) -> Any:
    """Return the id that *value* is recorded as, or *value* if it is no id."""
    text = id_text(value)
    if not text:
        return value
    own = bounded_id(text)
    if own != text:
        hint = f"longer than {MAX_ID_BYTES:,} bytes, and recorded with a digest"
        _logger.warning("run_log_id_shortened", field=name, recorded_as=own, hint=hint)
    return own
