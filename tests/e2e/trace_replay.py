"""Replay the real trace: in through the Pub/Sub emulator, out of the Firestore emulator, every run checked.

Run it with ``make trace``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace as replace_step
from typing import Any

from google.cloud import firestore
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from run_log.core import RunEvent, RunRef, Settings, Step, StepStatus, WorkflowRun
from run_log.producer import RunEventEmitter
from run_log.pubsub import PubSubConnection, provision
from run_log.stores import FirestoreRunLogService
from run_log.testing import FirestoreEmulator, PubSubEmulator

from .trace_file import expected_listing, read_trace, source, states

MAX_PENDING = 5_000
LOOK_EVERY = 100
"""Events between two looks at how many are pending: counting those takes longer than emitting one."""
PAGE = 100
IDLE_SECONDS = 5.0

Advance = Callable[[int], object]


def labelled(run: WorkflowRun) -> WorkflowRun:
    """Return *run* with labels and a parent, which the trace does not have."""
    labels = {"trace": "real", "shard": str(len(run.id) % 7)}
    return run.model_copy(update={"labels": labels, "parent": RunRef(run.workflow_id, "whole")})


def steps_of(run: WorkflowRun) -> tuple[Step, ...]:
    """Return two steps for *run*, one within the other."""
    begun, ended = run.started_at, run.completed_at or run.started_at
    outer = Step(
        key="all",
        name="all",
        status=StepStatus.SUCCESS,
        started_at=begun,
        ended_at=ended,
        attributes={"took_ms": run.duration_ms},
        version=1,
    )
    return outer, replace_step(outer, key="last", name="last", parent="all", started_at=ended, version=2)


async def publish(emitter: RunEventEmitter, runs: Sequence[WorkflowRun], advance: Advance) -> None:
    """Emit every state of *runs*, no faster than the broker takes them, so that none is dropped."""
    shown = 0

    def show() -> None:
        nonlocal shown
        delivered = emitter.stats.delivered
        advance(delivered - shown)
        shown = delivered

    for emitted, run in enumerate(states(runs), start=1):
        event = RunEvent.from_run(run)
        emitter.emit(event.model_copy(update={"steps": steps_of(run)}) if run.status.is_terminal else event)
        if emitted % LOOK_EVERY == 0 and emitter.stats.pending >= MAX_PENDING:
            await emitter.flush(0.2)
            show()
    while emitter.stats.pending:
        await emitter.flush(0.2)
        show()
    show()


async def verify(service: FirestoreRunLogService, runs: Sequence[WorkflowRun], advance: Advance) -> list[str]:
    """Compare every run, stats and page with an independent fold; return what differs."""
    faults: list[str] = []
    for workflow_id, expected in expected_listing(runs).items():
        count = len(expected)
        stats = await service.get_stats(workflow_id)
        if stats != {"total": count, "successful": count}:
            faults.append(f"stats of {workflow_id}: {stats}, expected {count} runs, all successful")
        listed: list[WorkflowRun] = []
        async for page in pages(service, workflow_id):
            listed += page
            advance(len(page))
        if listed != expected:
            faults.append(f"listing of {workflow_id}: {len(listed)} runs differ from {count} expected")
        if await service.get_latest_run(workflow_id) != expected[0]:
            faults.append(f"latest run of {workflow_id}")
        # One of each workflow: each costs a read.
        if await service.get_steps(*expected[-1].key) != steps_of(expected[-1]):
            faults.append(f"steps of {expected[-1].key}")
    if pending := await service.get_pending_runs():
        faults.append(f"{len(pending)} runs are pending")
    return faults


async def pages(service: FirestoreRunLogService, workflow_id: str) -> AsyncIterator[list[WorkflowRun]]:
    """Yield a workflow's pages until nothing is left."""
    cursor: str | None = None
    while True:
        page, cursor = await service.list_runs(workflow_id, limit=PAGE, start_after=cursor)
        yield page
        if cursor is None:
            return


async def start_projector(*options: str) -> asyncio.subprocess.Process:
    """Start ``run-log projector pull`` as a process of its own, in this one's environment."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from run_log.console import main; main()",
        "projector",
        "pull",
        *options,
    )


async def watch(settings: Settings, show: Advance) -> None:
    """Show how many runs are successful so far, about once a second, until cancelled."""
    client: Any = firestore.AsyncClient(project=settings.project, database=settings.database)
    while True:
        documents = await client.collection(settings.root_collection).get()
        show(sum(int(document.to_dict().get("successful", 0)) for document in documents))
        await asyncio.sleep(1)


async def replay(runs: Sequence[WorkflowRun], console: Console) -> list[str]:
    """Publish, project in another process, verify; return what differs."""
    settings = Settings.from_env()
    provision(PubSubConnection.from_settings(settings), settings)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    begun = time.monotonic()
    emitter = RunEventEmitter.from_env()
    service = FirestoreRunLogService.from_env()
    projector = await start_projector("--until-idle", str(IDLE_SECONDS))
    try:
        with Progress(*columns, console=console) as progress:
            published = progress.add_task("published", total=2 * len(runs))
            projected = progress.add_task("successful", total=len(runs))
            publishing = asyncio.create_task(
                publish(emitter, runs, lambda count: progress.advance(published, count))
            )
            watching = asyncio.create_task(
                watch(settings, lambda count: progress.update(projected, completed=count))
            )
            await publishing
            code = await projector.wait()
            elapsed = time.monotonic() - begun - IDLE_SECONDS
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            if code:
                return [f"the projector exited with {code}"]
            console.print(
                f"{2 * len(runs)} events in {elapsed:.1f} s: {2 * len(runs) / elapsed:.0f} events/s"
            )
            verified = progress.add_task("verified", total=len(runs))
            return await verify(service, runs, lambda count: progress.advance(verified, count))
    finally:
        if projector.returncode is None:
            projector.terminate()
            await projector.wait()
        emitter.close()
        await service.close()


def main() -> int:
    """Start both emulators, replay the whole trace, and return 0 if nothing differs."""
    console = Console()
    runs = list(map(labelled, read_trace(1.0)))
    console.print(f"{len(runs)} runs in {len({run.workflow_id for run in runs})} workflows: {source()}")
    with FirestoreEmulator() as firestore_emulator, PubSubEmulator() as pubsub_emulator:
        os.environ.update({**firestore_emulator.environment, **pubsub_emulator.environment})
        os.environ["GOOGLE_CLOUD_PROJECT"] = "run-log-trace"
        faults = asyncio.run(replay(runs, console))
    for fault in faults:
        console.print(fault, style="red")
    if not faults:
        console.print(
            "Every run, every workflow's stats and every page equal an independent fold.", style="green"
        )
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
