from __future__ import annotations

import asyncio
import sqlite3
import time
from asyncio.subprocess import PIPE
from contextlib import closing
from pathlib import Path

import pytest
from tests.processes import started

from run_log.core import Outcome
from run_log.projector.imports.work import BATCH
from run_log.stores import SQLiteRunLogService

from .kit import csv_text, from_csv, imported
from .test_importing import rows, state

pytestmark = pytest.mark.process

COUNT = 2 * BATCH
PATIENCE = 100.0


def written(path: Path) -> int:
    """Return how many runs are in the file."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            (count,) = connection.execute("SELECT count(*) FROM runs").fetchone()
        except sqlite3.OperationalError:  # not made yet
            return 0
    return int(count)


async def test_an_import_that_is_killed_goes_on(tmp_path: Path) -> None:
    """A process that is killed in the middle, and started again, ends in the state of one import."""
    file, path = tmp_path / "runs.csv", tmp_path / "runs.db"
    text = csv_text(rows(COUNT))
    found = from_csv(file, text)
    environment = {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(path)}
    deadline = time.monotonic() + PATIENCE
    async with started("import", "csv", "-", environment=environment, stdin=PIPE) as process:
        assert process.stdin is not None
        # All but the last row, for which it waits.
        process.stdin.write(text[: text.rindex("\n", 0, -1) + 1].encode())
        while not (count := written(path)):
            assert process.returncode is None
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        process.kill()
        await process.communicate()

    assert BATCH == count
    async with started("import", "csv", str(file), "-o", "json", environment=environment) as process:
        await process.communicate()
    assert 0 == process.returncode
    killed, whole = SQLiteRunLogService(path=path), SQLiteRunLogService(path=tmp_path / "whole.db")
    try:
        assert {Outcome.APPLIED: COUNT} == (await imported(found, whole)).outcomes
        one, other = [await log.list_workflows(limit=10) for log in (killed, whole)]
        assert [each.to_json() for each in one[0]] == [each.to_json() for each in other[0]]
        assert COUNT == written(path)
        assert {Outcome.DUPLICATE: COUNT} == (await imported(found, killed)).outcomes
    finally:
        await asyncio.gather(killed.close(), whole.close())


async def test_a_signal_ends_an_import_in_order(tmp_path: Path) -> None:
    """SIGTERM ends an import after the batch in hand with exit code 130, and says how to go on."""
    file, path = tmp_path / "runs.csv", tmp_path / "runs.db"
    file.write_text(csv_text(rows(10_000)), encoding="utf-8")
    environment = {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(path)}
    deadline = time.monotonic() + PATIENCE
    async with started("import", "csv", str(file), environment=environment) as process:
        while not written(path):
            assert process.returncode is None
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        process.terminate()
        _, err = await process.communicate()

    assert 130 == process.returncode
    assert "run the same command to go on" in err.decode()
    log = SQLiteRunLogService(path=path)
    try:
        await state(log)
    finally:
        await log.close()
