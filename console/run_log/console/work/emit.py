"""``run-log emit``: saves the state of a run, and waits until queries see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from run_log.core import TriggerType, WaitTimeoutError, WorkflowRun, utc_now
from run_log.core.ids import uuid7
from run_log.core.models import snapshot

from .opening import delivered, opened_run_log


async def emit_state(
    workflow_id: str,
    run_id: str | None,
    fields: Mapping[str, Any],
    *,
    wait: float | None,
    backend: str | None = None,
) -> tuple[WorkflowRun, float | None]:
    """Save a state of a run, new or not; return the run, and the seconds until queries saw it.

    *wait* is for how many seconds to wait for that; None does not wait, and returns None for the seconds.
    """
    asks = run_id is not None or wait is not None
    async with opened_run_log(backend, queries=asks, saves=True, makes=True) as log:
        before = None if run_id is None else await log.get_run(workflow_id, run_id)
        run = _state(workflow_id, run_id or uuid7(), fields, before)
        begun = time.monotonic()
        await log.save_run(run)
        await delivered(log)
        if wait is None:
            return run, None
        try:
            async with asyncio.timeout(wait):
                while await log.get_run(*run.key) != run:  # noqa: ASYNC110 - queries tell nobody
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise WaitTimeoutError(
                f"run {run.id!r} of workflow {workflow_id!r} is published, but queries did not see it within "
                f"{wait:g} s; check the projector with run-log doctor"
            ) from error
        return run, time.monotonic() - begun


def _kept(before: WorkflowRun | None) -> dict[str, Any]:
    """Return what a run keeps from its state *before*, unless it is given anew."""
    names = ("trigger_type", "labels", "parent", "trace_id")
    return {} if before is None else {name: getattr(before, name) for name in names}


def _state(
    workflow_id: str, run_id: str, fields: Mapping[str, Any], before: WorkflowRun | None
) -> WorkflowRun:
    now = utc_now()
    run = snapshot(
        {
            "id": run_id,
            "workflow_id": workflow_id,
            "trigger_type": TriggerType.MANUAL,
            "started_at": now if before is None else before.started_at,
            "attempt": 1 if before is None else before.attempt + before.status.is_terminal,
            **_kept(before),
            **fields,
        }
    )
    if run.status.is_terminal:
        run.completed_at = now
        run.duration_ms = (now - run.started_at).total_seconds() * 1_000
    return run
