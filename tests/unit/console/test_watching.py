from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from run_log.console.views.output import OutputFormat
from run_log.console.work.watch import watch_runs
from run_log.stores import SQLiteRunLogService
from run_log.testing import an_event


@pytest.mark.parametrize("output", OutputFormat)
async def test_watching_ends_once_nobody_reads(
    output: OutputFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes of runs are shown until the reader of a pipe has left: the next one ends it."""
    path = tmp_path / "runs.sqlite3"
    monkeypatch.setenv("RUN_LOG_BACKEND", "sqlite")
    monkeypatch.setenv("RUN_LOG_SQLITE_PATH", str(path))
    log = SQLiteRunLogService(path=path)
    async with log.watch() as watch:
        await log.apply([an_event(id="r0")])
        first = await anext(aiter(watch))
    await log.apply([an_event(id="r1")])
    await log.close()
    reading, writing = os.pipe()
    with os.fdopen(reading) as reader, os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        async with asyncio.timeout(60):
            watching = asyncio.create_task(watch_runs(None, cursor=first.cursor, output=output))
            shown = await asyncio.to_thread(reader.readline)
            reader.close()
            log = SQLiteRunLogService(path=path)
            await log.apply([an_event(id="r2")])
            await log.close()
            await watching

    assert "r1" in shown
