from __future__ import annotations

from pathlib import Path

import pytest

from run_log.stores import InMemoryRunLogService, RunLogService, SQLiteRunLogService

from .cursors import INVALID, VALUE, fill, listings, run_cursors
from .rows import run_files, run_rows

pytestmark = pytest.mark.search

ROWS = 10_000
FILES = 60
CURSORS = 5_000


def test_whatever_a_row_holds_is_a_value_or_an_error_of_ours() -> None:
    """Ten thousand odd rows of a file, each read by all that reads rows, are values or errors of ours."""
    counts = run_rows(range(ROWS), seed=1)

    assert {"run: value", "run: UnreadableRunError", "head: WriteRefusedError", "counter: StoreError"} <= {
        *counts
    }


def test_whatever_a_file_holds_ends() -> None:
    """However a SQLite file is damaged, every query, save, sweep and audit of it ends."""
    counts = run_files(range(FILES), seed=2)

    assert {"cell: value", "cell: UnreadableRunError", "schema: ConfigurationError"} <= {*counts}


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_forged_cursors(backend: str, tmp_path: Path) -> None:
    """Whatever somebody makes of a cursor, it leads to a page of its listing or is refused as a cursor."""
    log: RunLogService = InMemoryRunLogService()
    if backend == "sqlite":
        log = SQLiteRunLogService(path=tmp_path / "runs")
    await fill(log)
    among = await listings(log, watch=True)

    counts = await run_cursors(range(CURSORS), seed=3, among=among)

    assert {f"{one.name}: {what}" for one in among for what in (INVALID, VALUE)} == {*counts}
    await log.close()
