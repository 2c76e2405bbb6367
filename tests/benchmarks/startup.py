"""How long a command takes from its start to its end, beside an interpreter that does nothing."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from run_log.core import RunEvent
from run_log.stores import SQLiteRunLogService
from run_log.testing import FirestoreEmulator, a_run

from .report import Options, Report, Row, Sample, in_rounds, number

CALLS: Final = 5
STORED: Final = 100
"""Runs in the SQLite file; a page of them is listed."""

_RUN: Final = "from run_log.console import main; main()"
_LIBRARIES: Final = """
import asyncio, atexit, gc, sqlite3
import typer
from pydantic import BaseModel

class Run(BaseModel):
    id: str

def show(workflow: str, limit: int = 50) -> None:
    asyncio.run(asyncio.to_thread(sqlite3.connect, ":memory:"))

atexit.register(gc.freeze)
typer.run(show)
"""
"""A command of two options, a model of one field and a file of nothing."""

CASES: Final = {
    "python -c pass": ["-c", "pass"],
    "run-log --help": ["-c", _RUN, "--help"],
    "run-log runs list --help": ["-c", _RUN, "runs", "list", "--help"],
    "run-log runs list, SQLite": ["-c", _RUN, "runs", "list", "workflow-1"],
    "the libraries alone": ["-c", _LIBRARIES, "workflow-1"],
    "import pydantic": ["-c", "import pydantic"],
    "import google.cloud.firestore": ["-c", "import google.cloud.firestore"],
}


def measure(options: Options, emulator: FirestoreEmulator) -> Report:
    """Start each of them, in turns."""
    del emulator  # nothing of Google's is asked
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.sqlite3"
        asyncio.run(_fill(path))
        environment = {**os.environ, "RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(path)}
        figures = in_rounds(list(CASES), options.repetitions * CALLS, lambda what: _sample(what, environment))
    nothing, pydantic = figures["python -c pass"], figures["import pydantic"]
    return Report(
        title="a command, from its start to its end",
        columns=[
            "ms",
            "x nothing",
            "x import pydantic",
            "CPU: ms",
            "CPU: x nothing",
            "CPU: x import pydantic",
        ],
        rows=[
            Row(
                what=what,
                figures=[
                    number(taken["wall"]),
                    number(taken["wall"] / nothing["wall"]),
                    number(taken["wall"] / pydantic["wall"]),
                    number(taken["cpu"]),
                    number(taken["cpu"] / nothing["cpu"]),
                    number(taken["cpu"] / pydantic["cpu"]),
                ],
            )
            for what, taken in figures.items()
        ],
        notes=[f"median of {options.repetitions * CALLS} starts of each, in turns"],
    )


async def _fill(path: Path) -> None:
    service = SQLiteRunLogService(path=path)
    await service.apply([RunEvent.from_run(a_run(id=f"run-{number}")) for number in range(STORED)])
    await service.close()


def _sample(what: str, environment: Mapping[str, str]) -> Sample:
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(  # noqa: S603 - our own interpreter on our own text
        [sys.executable, *CASES[what]],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": 1_000 * wall, "cpu": 1_000 * cpu}
