"""A page of a listing in SQLite: the processor time of a run, beside SQLite's own for the same rows."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Final

from run_log.core import RunStatus
from run_log.stores import SQLiteRunLogService
from run_log.testing import FirestoreEmulator, a_run

from . import workload
from .report import Options, Report, Row, Sample, in_rounds, number

LIMIT: Final = 50
CALLS: Final = 100
SMALL: Final = 1_000
LARGE: Final = 20_000
LARGEST: Final = 100_000
PER_APPLY: Final = 5_000
RAW: Final = "SELECT * FROM runs WHERE workflow = ? ORDER BY started_at DESC, run DESC LIMIT ?"


def measure(options: Options, emulator: FirestoreEmulator) -> Report:
    """Read the first page of workflows of several sizes, all in one file."""
    del emulator  # nothing of Google's is asked
    sizes = [SMALL, *([] if options.quick else [LARGE]), *([LARGEST] if options.full else [])]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.sqlite3"
        asyncio.run(_fill(path, sizes))
        middle = in_rounds(sizes, options.repetitions, lambda size: asyncio.run(_sample(path, size)))
    first = middle[SMALL]
    return Report(
        title=f"list_runs(limit={LIMIT}) in SQLite: the first page",
        columns=["CPU: us a run", "CPU: x the raw query", f"x {SMALL:,} runs", "ms a page"],
        rows=[
            Row(
                what=f"{size:,} runs",
                figures=[
                    number(figures["cpu"]),
                    number(figures["ratio"]),
                    number(figures["cpu"] / first["cpu"]),
                    number(figures["wall"]),
                ],
            )
            for size, figures in middle.items()
        ],
        notes=[
            f"mean of {CALLS} calls of each; median of {options.repetitions} such; two events a run",
            "the raw query reads all columns of as many rows in the same order, and makes nothing of them",
        ],
    )


async def _fill(path: Path, sizes: list[int]) -> None:
    service = SQLiteRunLogService(path=path)
    for size in sizes:
        runs = [
            a_run(
                workflow_id=f"of-{size}",
                id=f"run-{number:06}",
                status=RunStatus.SUCCESS,
                started_at=a_run().started_at + timedelta(seconds=number),
                trigger_data={"program": "frequency", "arguments": ["-c", "20", "-pop", "AFR"]},
                duration_ms=50.0 + number % 1_000,
            )
            for number in range(size)
        ]
        for part in workload.chunks(runs, PER_APPLY):
            await service.apply(workload.events_of(part))
    await service.close()


async def _sample(path: Path, size: int) -> Sample:
    service = SQLiteRunLogService(path=path)
    connection = sqlite3.connect(path)
    if len((await service.list_runs(f"of-{size}", limit=LIMIT))[0]) != LIMIT:
        raise RuntimeError(f"of-{size} does not have the runs it should have")
    # Of all threads: a call is made in one of its own.
    begun, cpu = time.perf_counter(), time.process_time()
    for _ in range(CALLS):
        await service.list_runs(f"of-{size}", limit=LIMIT)
    taken, ours = time.perf_counter() - begun, time.process_time() - cpu
    cpu = time.process_time()
    for _ in range(CALLS):
        connection.execute(RAW, (f"of-{size}", LIMIT + 1)).fetchall()
    raw = time.process_time() - cpu
    connection.close()
    await service.close()
    return {"cpu": 1e6 * ours / CALLS / LIMIT, "ratio": ours / raw, "wall": 1e3 * taken / CALLS}
