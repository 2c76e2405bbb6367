"""``run-log runs watch``: shows changes of runs as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from run_log.console.views.output import OutputFormat, json_text, screen, write
from run_log.console.views.tables import run_line
from run_log.core import RunNotFoundError, WaitTimeoutError, WorkflowRun

from .opening import opened_run_log


async def watch_runs(workflow_id: str | None, *, cursor: str | None, output: OutputFormat) -> None:
    """Show the changes of the runs of one workflow, or of all, until nobody reads them."""
    async with opened_run_log() as log, log.watch(workflow_id, since_cursor=cursor) as updates:
        async for update in updates:
            if not _show(update.run, update.to_json(), output):
                return


async def watch_one(
    workflow_id: str, run_id: str, *, cursor: str | None, within: float | None, output: OutputFormat
) -> WorkflowRun:
    """Show the changes of one run until it ends, *within* so many seconds; return its last state."""
    state = "could not be read"
    try:
        async with (
            asyncio.timeout(within),
            opened_run_log() as log,
            log.watch(workflow_id, since_cursor=cursor) as updates,
        ):
            # Read once the watch has begun: a change in between would be missed, and the end never seen.
            run = await log.get_run(workflow_id, run_id)
            if run is None:
                raise RunNotFoundError(workflow_id, run_id)
            _show(run, run.to_json(), output)
            while not run.status.is_terminal:
                state = f"is still {run.status.value}"
                update = await anext(updates)
                if update.run.id == run_id:
                    run = update.run
                    _show(run, update.to_json(), output)
    except TimeoutError as error:
        raise WaitTimeoutError(
            f"run {run_id!r} of workflow {workflow_id!r} {state} after {within:g} s; it may end later"
        ) from error
    return run


def _show(run: WorkflowRun, record: Mapping[str, Any], output: OutputFormat) -> bool:
    if output in {OutputFormat.JSON, OutputFormat.JSONL}:
        return write([json_text(record)])
    seen = screen(wide=output is OutputFormat.WIDE)
    return write(run_line(run).lines(seen, headed=False))
