"""The page about imports: its commands run, and its tables are those of the code."""

from __future__ import annotations

import asyncio
import json
import shlex
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import typer
from tests.e2e.command_line import called

from run_log.console.commands.imports import app
from run_log.core import RunStatus
from run_log.core.steps import MAX_STEPS
from run_log.projector.imports import CELERY_STATUSES, FIELDS
from run_log.projector.imports.mapping import NEEDED, OBJECTS, UNITS
from run_log.projector.imports.tables import MAX_LINE
from run_log.stores import SQLiteRunLogService
from run_log.testing import a_run

from .repository import blocks, codes, one_line, read, section, table

IMPORT = read("docs/import.md")
# What the real programs make is imported by tests of its own; these have the columns that are read.
CELERY = """
CREATE TABLE celery_taskmeta (id INTEGER PRIMARY KEY, task_id, status, result, date_done, traceback, name);
INSERT INTO celery_taskmeta VALUES (1, 'a', 'SUCCESS', '3', '2026-03-04 12:00:00.5', NULL, 'shop.add');
"""
AIRFLOW = """
CREATE TABLE dag_run (id INTEGER PRIMARY KEY, dag_id, run_id, state, run_type, start_date, end_date, conf);
CREATE TABLE task_instance (task_id, dag_id, run_id, state, try_number, start_date, end_date);
INSERT INTO dag_run VALUES (1, 'nightly', 'a', 'success', 'scheduled', '2026-03-04', '2026-03-05', '{}');
INSERT INTO task_instance VALUES ('load', 'nightly', 'a', 'success', 1, '2026-03-04', '2026-03-05');
"""


def made(folder: Path) -> Mapping[str, str]:
    """Make the files that the page imports, and return the environment."""
    (folder / "runs.csv").write_text(
        "run_no,status,started_at\n7,success,2026-03-04 12:00\n", encoding="utf-8"
    )
    (folder / "runs.jsonl").write_text(json.dumps(a_run().to_json()), encoding="utf-8")
    for name, script in (("results.db", CELERY), ("airflow.db", AIRFLOW)):
        with closing(sqlite3.connect(folder / name)) as connection:
            connection.executescript(script)
    return {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(folder / "run-log.db")}


async def workflows(path: Path) -> set[str]:
    """Return the workflows that a file has runs of."""
    log = SQLiteRunLogService(path=path)
    try:
        found, _ = await log.list_workflows(limit=100)
    finally:
        await log.close()
    return {stats.workflow_id for stats in found}


def test_the_commands_run(tmp_path: Path) -> None:
    """Each command of the first block ends with 0; the first is dry, and the others import."""
    environment = made(tmp_path)
    for number, line in enumerate(blocks(IMPORT, "sh")[0].splitlines()):
        ended = called(*shlex.split(line)[1:], folder=tmp_path, environment=environment)
        assert 0 == ended.code, (line, ended)
        assert (number > 0) is (tmp_path / "run-log.db").exists()

    assert {"invoices", "workflow-1", "shop.add", "nightly"} == asyncio.run(
        workflows(tmp_path / "run-log.db")
    )


def test_the_table_has_every_command() -> None:
    """The table has each command, and no other."""
    group: Any = typer.main.get_command(app)

    assert {f"import {name}" for name in group.commands} == {
        " ".join(codes(row[0])[0].split()[:2]) for row in table(IMPORT, "command")
    }


def test_the_table_has_every_field() -> None:
    """The table has each field, and says which are needed and which hold objects."""
    rows = [codes(row[0]) for row in table(section(IMPORT, "## Columns and fields"), "field")]

    assert set(FIELDS) == {field for row in rows for field in row}
    assert set(NEEDED) == set(rows[0])
    assert set(OBJECTS) == set(rows[-1])


def test_the_words_and_numbers_are_those_of_the_code() -> None:
    """States, units and limits are those of the code."""
    text = one_line(IMPORT)

    assert {state.upper() for state in CELERY_STATUSES} <= set(codes(section(IMPORT, "## Celery")))
    assert RunStatus.SKIPPED is CELERY_STATUSES["ignored"]
    assert "`s`, `ms` or `us`" in text
    assert {"s", "ms", "us"} == set(UNITS)
    assert f"{MAX_LINE:,} characters" in text
    assert f"of more than {MAX_STEPS} the newest" in text
