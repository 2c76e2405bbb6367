"""Every query, in a small history and in a large one: what is read does not grow with what is stored."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Final

from run_log.core import RunEvent, RunStatus, utc_now
from run_log.stores import FirestoreRunLogService
from run_log.testing import FirestoreEmulator, a_run

from .report import Options, Report, Row, medians, number

SMALL: Final = 1_000
LARGE: Final = 20_000
LARGEST: Final = 100_000
CALLS: Final = 20
WARM_UP: Final = 2
PAUSED: Final = 20
"""Runs that wait, whatever the size: the inbox reads those and no others."""
WORKFLOW: Final = "w"
PER_APPLY: Final = 5_000

Query = Callable[[FirestoreRunLogService], Awaitable[object]]

QUERIES: Final[Mapping[str, Query]] = {
    "list_runs(limit=50)": lambda service: service.list_runs(WORKFLOW),
    "list_runs(status=failed)": lambda service: service.list_runs(WORKFLOW, status="failed"),
    "get_run": lambda service: service.get_run(WORKFLOW, "run-000500"),
    "get_history": lambda service: service.get_history(WORKFLOW, "run-000500"),
    "get_stats": lambda service: service.get_stats(WORKFLOW),
    "get_summary": lambda service: service.get_summary(WORKFLOW),
    "get_latest_run": lambda service: service.get_latest_run(WORKFLOW),
    "get_pending_runs": lambda service: service.get_pending_runs(),
    "list_pending(overdue=False)": lambda service: service.list_pending(overdue=False),
    "list_workflows": lambda service: service.list_workflows(),
}


def measure(options: Options, emulator: FirestoreEmulator) -> Report:
    """Time every query in histories of two sizes."""
    large = LARGEST if options.full else LARGE if not options.quick else 2 * SMALL
    projects = {size: f"read-{size}-{uuid.uuid4().hex[:8]}" for size in (SMALL, large)}
    middle = asyncio.run(_measure(projects, options.repetitions))
    for project in projects.values():
        emulator.clear(project)
    return Report(
        title=f"queries: {large:,} runs beside {SMALL:,}",
        columns=["x small", "small: ms", "large: ms"],
        rows=[
            Row(
                what=name,
                figures=[
                    number(middle[large, name] / middle[SMALL, name]),
                    number(middle[SMALL, name]),
                    number(middle[large, name]),
                ],
            )
            for name in QUERIES
        ],
        notes=[
            f"median of {CALLS} calls, small and large in turns; of {options.repetitions} such the median",
            f"one workflow, in Firestore as the projector leaves it; {PAUSED} of its runs are paused",
        ],
    )


async def _measure(projects: Mapping[int, str], repetitions: int) -> dict[tuple[int, str], float]:
    services = {size: FirestoreRunLogService(project=project) for size, project in projects.items()}
    for size, service in services.items():
        await _fill(service, size)
    rounds = [await _round(services) for _ in range(repetitions)]
    for service in services.values():
        await service.close()
    names = [(size, name) for size in services for name in QUERIES]
    middle = medians([{f"{size} {name}": each[size, name] for size, name in names} for each in rounds])
    return {(size, name): middle[f"{size} {name}"] for size, name in names}


async def _fill(service: FirestoreRunLogService, size: int) -> None:
    now = utc_now()

    def event(number: int) -> RunEvent:
        ended = RunStatus.FAILED if number % 10 == 0 else RunStatus.SUCCESS
        run = a_run(
            workflow_id=WORKFLOW,
            id=f"run-{number:06}",
            status=RunStatus.PAUSED if number % (size // PAUSED) == 1 else ended,
            started_at=now - timedelta(minutes=number % 10_000, microseconds=number),
            trigger_data={"program": "frequency", "arguments": ["-c", "20", "-pop", "AFR"]},
            duration_ms=50.0 + number % 1_000,
        )
        return RunEvent(run=run)

    for start in range(0, size, PER_APPLY):
        await service.apply([event(number) for number in range(start, min(start + PER_APPLY, size))])


async def _round(services: Mapping[int, FirestoreRunLogService]) -> dict[tuple[int, str], float]:
    """Return the median time of each query in each history, in milliseconds."""
    middle: dict[tuple[int, str], float] = {}
    for name, query in QUERIES.items():
        taken: dict[int, list[float]] = {size: [] for size in services}
        for turn in range(WARM_UP + CALLS):
            for size, service in services.items():
                begun = time.perf_counter()
                await query(service)
                if turn >= WARM_UP:
                    taken[size].append((time.perf_counter() - begun) * 1_000)
        middle |= {(size, name): statistics.median(times) for size, times in taken.items()}
    return middle
