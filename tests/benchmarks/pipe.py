"""The whole pipe: emitter, Pub/Sub emulator, one projector process, Firestore emulator, query."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final

from google.cloud import firestore
from tests.e2e.trace_replay import publish

from run_log.core import RunEvent, Settings, WorkflowRun
from run_log.producer import RunEventEmitter
from run_log.pubsub import PubSubConnection, provision
from run_log.stores import FirestoreRunLogService
from run_log.stores.firestore.client import run_path
from run_log.testing import FirestoreEmulator, a_run

from . import drain, workload
from .drain import projector, visible
from .firestore_baselines import close, raw_writes
from .report import Options, Report, Row, Sample, medians, number, percentile

PIPE_RUNS: Final = 4_000
RATE: Final = 100
"""Events a second while the delay is measured."""
RATE_SECONDS: Final = 4
PATIENCE_SECONDS: Final = 90.0
POLL_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 0.005


def measure(options: Options, emulator: FirestoreEmulator) -> Report:
    """Publish a part of the trace as fast as it is taken, then some events at a steady rate."""
    runs = workload.selected(options)[:PIPE_RUNS]
    seconds = 3 if options.quick else RATE_SECONDS
    drain.warm_up(workload.events_of(workload.selected(options)), emulator)
    samples = [_round(runs, seconds, emulator) for _ in range(options.repetitions)]
    middle = medians(samples)
    return Report(
        title="the whole pipe, one projector process",
        columns=["", "beside"],
        rows=[
            Row(
                what="events/s, first emit to all visible",
                figures=[number(middle["events"]), f"{number(middle['raw'])} raw documents/s"],
            ),
            Row(what="... as a ratio to raw documents/s", figures=[number(middle["x raw"]), ""]),
            Row(
                what="drain: events/s of a backlog published before the projector is started",
                figures=[number(middle["drain"]), ""],
            ),
            Row(what="... as a ratio to raw documents/s", figures=[number(middle["drain x raw"]), ""]),
            Row(
                what=f"emit to visible at {RATE} events/s, ms",
                figures=[f"p50 {number(middle['p50'])}", f"p99 {number(middle['p99'])}"],
            ),
        ],
        notes=[
            f"{workload.name()}; {2 * len(runs):,} events of it; median of {options.repetitions}",
            "the backlog is timed from when its first events are visible: without the projector's start",
            f"warmed up by {drain.WARM_UP_ROUNDS} backlogs of up to 12,264 events",
            f"for the rate, the stats are looked at every {POLL_SECONDS * 1000:g} ms",
            f"for the delay, the runs not yet seen are read every {number(middle['look'])} ms",
        ],
    )


def _round(runs: Sequence[WorkflowRun], seconds: int, emulator: FirestoreEmulator) -> Sample:
    through = asyncio.run(_sample(runs, seconds, emulator))
    drained = drain.rate(workload.events_of(runs), emulator)
    return {**through, "drain": drained, "drain x raw": drained / through["raw"]}


async def _sample(runs: Sequence[WorkflowRun], seconds: int, emulator: FirestoreEmulator) -> Sample:
    os.environ["GOOGLE_CLOUD_PROJECT"] = project = f"pipe-{uuid.uuid4().hex[:8]}"
    settings = Settings.from_env()
    provision(PubSubConnection.from_settings(settings), settings)
    emitter = RunEventEmitter.from_env()
    service = FirestoreRunLogService.from_env()
    async with projector():
        emitter.emit(a_run(id="first"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await service.get_run("workflow-1", "first") is None:  # noqa: ASYNC110 - set elsewhere
                await asyncio.sleep(POLL_SECONDS)
        taken = await _through(emitter, runs, settings)
        delays, looks = await _delays(emitter, settings, seconds)
    await service.close()
    emitter.close()
    last = [RunEvent.from_run(run) for run in runs]
    raw = len(last) / await raw_writes(project, last, per_commit=500)
    emulator.clear(project)
    return {
        "events": 2 * len(runs) / taken,
        "raw": raw,
        "x raw": 2 * len(runs) / taken / raw,
        "p50": percentile(delays, 50) * 1000,
        "p99": percentile(delays, 99) * 1000,
        "look": statistics.median(looks) * 1000,
    }


async def _through(emitter: RunEventEmitter, runs: Sequence[WorkflowRun], settings: Settings) -> float:
    """Emit all states of *runs*; return the seconds until the stats count every one as successful."""
    client: Any = firestore.AsyncClient(project=settings.project)
    begun = time.perf_counter()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await publish(emitter, runs, int)
        # The run that showed that the projector is up is one more.
        while (await visible(client, settings))[1] < len(runs) + 1:  # noqa: ASYNC110 - set elsewhere
            await asyncio.sleep(POLL_SECONDS)
    elapsed = time.perf_counter() - begun
    await close(client)
    return elapsed


async def _delays(
    emitter: RunEventEmitter, settings: Settings, seconds: int
) -> tuple[list[float], list[float]]:
    """Emit at `RATE`; return how long each event took to be visible, and the time between two looks."""
    client: Any = firestore.AsyncClient(project=settings.project)
    emitted: dict[str, float] = {}
    delays: list[float] = []
    looks: list[float] = []
    emitting = asyncio.create_task(_emit_steadily(emitter, emitted, seconds))
    looked = time.perf_counter()
    async with asyncio.timeout(seconds + PATIENCE_SECONDS):
        while not emitting.done() or emitted:
            references = [
                client.document(run_path(settings.root_collection, ("steady", run_id))) for run_id in emitted
            ]
            if references:
                snapshots = client.get_all(references, field_paths=["status"])
                seen = [found.id async for found in snapshots if found.exists]
                now = time.perf_counter()
                delays += [now - emitted.pop(run_id) for run_id in seen]
            await asyncio.sleep(LOOK_SECONDS)
            looks.append(time.perf_counter() - looked)
            looked = time.perf_counter()
    await close(client)
    return delays, looks


async def _emit_steadily(emitter: RunEventEmitter, emitted: dict[str, float], seconds: int) -> None:
    begun = time.perf_counter()
    for count in range(RATE * seconds):
        run_id = f"steady-{count}"
        await asyncio.sleep(max(0.0, begun + count / RATE - time.perf_counter()))
        emitted[run_id] = time.perf_counter()
        emitter.emit(a_run(workflow_id="steady", id=run_id))
