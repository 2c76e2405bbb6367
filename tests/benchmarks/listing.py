"""A page of a listing, beside the vendor's query for the same documents, in small and large workflows."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

from google.cloud import firestore

from run_log.core import RunEvent
from run_log.stores import FirestoreRunLogService
from run_log.stores.firestore.client import RUNS
from run_log.testing import FirestoreEmulator, a_run

from .firestore_baselines import ROOT, close, raw_writes
from .report import Options, Report, Row, Sample, medians, number

LIMIT: Final = 50
CALLS: Final = 30
WARM_UP: Final = 2
SMALL: Final = 1_000
LARGE: Final = 20_000
LARGEST: Final = 100_000
PER_COMMIT: Final = 500


def measure(options: Options, emulator: FirestoreEmulator) -> Report:
    """Read the first page of workflows of several sizes."""
    sizes = [SMALL, *([] if options.quick else [LARGE]), *([LARGEST] if options.full else [])]
    project = f"list-{uuid.uuid4().hex[:8]}"
    middle = asyncio.run(_measure(project, sizes, options.repetitions))
    emulator.clear(project)
    first = middle[SMALL]
    return Report(
        title=f"list_runs(limit={LIMIT}): the first page",
        columns=["x the raw query", f"x {SMALL:,} runs", "ms", "raw: ms"],
        rows=[
            Row(
                what=f"{size:,} runs",
                figures=[
                    number(figures["ratio"]),
                    number(figures["ours"] / first["ours"]),
                    number(figures["ours"]),
                    number(figures["raw"]),
                ],
            )
            for size, figures in middle.items()
        ],
        notes=[
            f"median of {CALLS} calls of each, in turns; median of {options.repetitions} such medians",
            f"the raw query reads the same {LIMIT + 1} documents in the same order and leaves them unread",
        ],
    )


async def _measure(project: str, sizes: list[int], repetitions: int) -> dict[int, dict[str, float]]:
    service = FirestoreRunLogService(project=project, root_collection=ROOT)
    client: Any = firestore.AsyncClient(project=project)
    for size in sizes:
        await _fill(project, size)
    # Each repetition visits every size: what slows the machine meanwhile slows them alike.
    rounds = [{size: await _sample(service, client, size) for size in sizes} for _ in range(repetitions)]
    await service.close()
    await close(client)
    return {size: medians([sizes_of[size] for sizes_of in rounds]) for size in sizes}


async def _fill(project: str, size: int) -> None:
    step = 20 * PER_COMMIT
    for start in range(0, size, step):
        numbers = range(start, min(start + step, size))
        await raw_writes(project, [_event(size, number) for number in numbers], per_commit=PER_COMMIT)


def _event(size: int, number: int) -> RunEvent:
    started_at = a_run().started_at + timedelta(seconds=number)
    payload = {"program": "frequency", "arguments": ["-c", "20", "-pop", "AFR"]}
    run = a_run(
        workflow_id=_workflow(size), id=f"run-{number:06}", started_at=started_at, trigger_data=payload
    )
    return RunEvent(run=run)


def _workflow(size: int) -> str:
    return f"of-{size}"


async def _sample(service: FirestoreRunLogService, client: Any, size: int) -> Sample:
    runs = client.collection(ROOT).document(_workflow(size)).collection(RUNS)
    query = (
        runs.order_by("started_at", direction="DESCENDING")
        .order_by("__name__", direction="DESCENDING")
        .limit(LIMIT + 1)
    )

    async def ours() -> int:
        return len((await service.list_runs(_workflow(size), limit=LIMIT))[0])

    async def raw() -> int:
        return len(await query.get())

    if (await ours(), await raw()) != (LIMIT, LIMIT + 1):
        raise RuntimeError(f"{_workflow(size)} does not have the runs it should have")
    taken: dict[str, list[float]] = {"ours": [], "raw": []}
    for turn in range(WARM_UP + CALLS):
        for name, call in (("ours", ours), ("raw", raw)):
            elapsed = await _timed(call)
            if turn >= WARM_UP:
                taken[name].append(elapsed * 1000)
    middle = {name: statistics.median(values) for name, values in taken.items()}
    return {**middle, "ratio": middle["ours"] / middle["raw"]}


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await call()
    return time.perf_counter() - begun
