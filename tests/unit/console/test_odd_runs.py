"""Runs that are hard to show, in processes whose terminals know few characters, or that nobody reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from run_log.core import RunStatus
from run_log.stores import SQLiteRunLogService
from run_log.testing import a_run, an_event

from .processes import run_log

pytestmark = pytest.mark.process

SQLITE = {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": "runs.sqlite3", "COLUMNS": "80"}
MAIN = "from run_log.console import main; main()"


def _nested(levels: int) -> object:
    value: object = "\ud800"
    for _ in range(levels):
        value = [value]
    return value


ODD: dict[str, dict[str, Any]] = {
    "long": {"duration_ms": 1.8e18},
    "deep": {"result": {"a": _nested(498), "n": 2**200}},
    "\U0001f600\x1b[2J": {"status": RunStatus.FAILED, "error": "\u5b57 [red]\nmore"},
}
"""Runs that had taken the page away."""


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """Return a folder with a file that holds the odd runs."""
    log = SQLiteRunLogService(path=tmp_path / "runs.sqlite3")
    await log.apply(
        [an_event(a_run(id=run_id, workflow_id="odd", **fields)) for run_id, fields in ODD.items()]
    )
    await log.close()
    return tmp_path


@pytest.mark.parametrize(
    ("encoding", "face"), [("ascii", r"\U0001f600"), ("cp1252", r"\U0001f600"), ("utf-8", "\U0001f600")]
)
def test_a_terminal_of_any_encoding(folder: Path, encoding: str, face: str) -> None:
    """A terminal that lacks characters is shown their escapes; no run takes the page away."""
    environment = {**SQLITE, "PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "1"}
    ended = run_log("runs", "list", "odd", folder=folder, **environment)

    assert (0, "") == (ended.returncode, ended.stderr)
    assert len(ODD) == sum(" 2026-01-01 00:00:00 " in line for line in ended.stdout.splitlines())
    assert f"{face}\\x1b[2J" in ended.stdout


def test_json_of_odd_runs(folder: Path) -> None:
    """The JSON of a page gives the values that were kept, also on a terminal that knows few characters."""
    ended = run_log(
        "runs", "list", "odd", "-o", "json", folder=folder, **SQLITE, PYTHONIOENCODING="ascii:strict"
    )

    runs = {run["id"]: run for run in json.loads(ended.stdout)["runs"]}
    assert (0, "") == (ended.returncode, ended.stderr)
    assert set(ODD) == set(runs)
    assert (ODD["deep"]["result"], 1.8e18) == (runs["deep"]["result"], runs["long"]["duration_ms"])


def test_an_error_that_names_an_odd_id(folder: Path) -> None:
    """An error is one line that commands no terminal, whatever the id that it is about."""
    ended = run_log(
        "runs", "show", "odd", "\x1b[2J\n\U0001f600", folder=folder, **SQLITE, PYTHONIOENCODING="ascii:strict"
    )

    told = r"run-log: there is no run '\x1b[2J\n\U0001f600' of workflow 'odd'"
    assert (3, "", 1) == (ended.returncode, ended.stdout, ended.stderr.count("\n"))
    assert ended.stderr.startswith(told)


@pytest.mark.parametrize("output", ["table", "jsonl"])
def test_a_pipe_that_nobody_reads(folder: Path, output: str) -> None:
    """A command whose reader has left, as ``head`` does, ends with 0 and says nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", MAIN, "runs", "list", "odd", "-o", output],
        cwd=folder,
        env={**os.environ, **SQLITE},
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(writing)

    assert (0, b"") == (ended.returncode, ended.stderr)


def test_a_process_without_streams(folder: Path) -> None:
    """A command that is started without stdout and stderr does what it is asked for, and ends with 0."""
    ended = subprocess.run(  # noqa: S603 - our own interpreter
        ["/bin/sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-c", MAIN, "runs", "list", "odd"],
        cwd=folder,
        env={**os.environ, **SQLITE},
        check=False,
        timeout=60,
    )

    assert 0 == ended.returncode
