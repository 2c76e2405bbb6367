"""``run-log verify`` on files: what it shows, to whom, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from run_log.core import RunStatus, utc_now
from run_log.stores.notices import VerifyNotice
from run_log.testing import an_event

from .files import in_file
from .processes import run_log

pytestmark = pytest.mark.process

SQLITE = {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": "runs.sqlite3"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a file of five runs of two workflows."""
    events = [an_event(workflow_id=f"w{number % 2}", id=f"r{number}", result={}) for number in range(5)]
    in_file(tmp_path / "runs.sqlite3", lambda log: log.apply(events))
    return tmp_path


def change(path: Path, statement: str, values: Sequence[object] = ()) -> None:
    """Change a file as nothing of run-log does."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def test_what_is_right(folder: Path) -> None:
    """Where nothing differs it exits 0, and says so on stderr alone."""
    ended = run_log("verify", folder=folder, **SQLITE)

    told = "no findings\nruns recounted: 5, of workflows: 2; nothing differs\n"
    assert (0, "", told) == (ended.code, ended.out, ended.err)


def test_what_is_wrong_and_repaired(folder: Path) -> None:
    """Where counts differ it exits 1 and shows them; with --repair it exits 0, and nothing differs after."""
    change(folder / "runs.sqlite3", "UPDATE workflows SET failed = failed + 7 WHERE workflow = 'w1'")

    wrong = run_log("verify", folder=folder, **SQLITE)
    repaired = run_log("verify", "--repair", "-o", "jsonl", folder=folder, **SQLITE)
    after = run_log("verify", "-o", "json", folder=folder, **SQLITE)

    rows = [line.split() for line in wrong.out.splitlines() if line.strip().startswith("w1")]
    assert (1, [["w1", "failed", "7", "0"], ["w1", "total", "9", "2"]]) == (wrong.code, rows)
    assert wrong.err.endswith("workflows that differ: 1\n")
    count = {"workflow_id": "w1", "kind": "count", "scope": "all", "begins": None, "repaired": True}
    assert [
        {**count, "name": "failed", "stored": 7, "recounted": 0},
        {**count, "name": "total", "stored": 9, "recounted": 2},
    ] == [json.loads(line) for line in repaired.out.splitlines()]
    assert (0, 0, True) == (repaired.code, after.code, "; repaired: 1; nothing differs" in repaired.err)
    assert {"findings": []} == json.loads(after.out)


def recorded(folder: Path) -> VerifyNotice | None:
    """Return the finding that is kept in the folder's file."""
    return in_file(folder / "runs.sqlite3", lambda log: log.get_notices()).verified


def test_what_is_kept(folder: Path) -> None:
    """With --record the finding is kept, and only then: what differed, then that it was repaired."""
    change(folder / "runs.sqlite3", "UPDATE workflows SET failed = failed + 7 WHERE workflow = 'w1'")
    before = utc_now()

    run_log("verify", folder=folder, **SQLITE)
    nothing = recorded(folder)
    wrong = run_log("verify", "--record", folder=folder, **SQLITE)
    differing = recorded(folder)
    run_log("verify", "w1", "--repair", "--record", folder=folder, **SQLITE)
    repaired = recorded(folder)
    run_log("verify", "--repair", folder=folder, **SQLITE)

    assert (1, None) == (wrong.code, nothing)
    assert differing is not None
    assert repaired is not None
    assert (None, 2, 5, 0, 1, ("w1",)) == tuple(differing.model_dump(exclude={"at"}).values())
    assert ("w1", 1, 2, 1, 0, ()) == tuple(repaired.model_dump(exclude={"at"}).values())
    assert before <= differing.at <= repaired.at <= utc_now()
    assert repaired == recorded(folder)


def test_what_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that cannot be read are shown with why, many only counted; they are not repaired, and exit 1."""
    change(folder / "runs.sqlite3", "UPDATE runs SET trigger_type = 'a pigeon' WHERE workflow = 'w0'")
    monkeypatch.setattr("run_log.stores.audit._verify.MAX_LISTED_RUNS", 1)

    ended = run_log("verify", "w0", "--repair", "-o", "jsonl", folder=folder, **SQLITE)

    finding, unlisted = map(json.loads, ended.out.splitlines())
    assert (1, "w0", "run", "r0") == (ended.code, *list(finding.values())[:3])
    assert "trigger_type" in finding["problem"]
    assert {"workflow_id": "w0", "kind": "unlisted", "runs": 2} == unlisted


def test_how_far_it_is(folder: Path) -> None:
    """Where stderr is a terminal it shows how far it is; stdout holds the results alone."""
    change(folder / "runs.sqlite3", "UPDATE workflows SET failed = failed + 7 WHERE workflow = 'w1'")
    terminal, end = pty.openpty()
    code = "from run_log.console import main; main()"
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code, "verify", "-o", "jsonl"],
        cwd=folder,
        env={**os.environ, **SQLITE, "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=end,
    ) as process:
        os.close(end)
        shown = b""
        with contextlib.suppress(OSError):  # its other end is closed
            while part := os.read(terminal, 65_536):
                shown += part
        assert process.stdout is not None
        out = process.stdout.read()
    os.close(terminal)

    assert ["failed", "total"] == [json.loads(line)["name"] for line in out.splitlines()]
    assert [True] * 2 == [part in shown for part in (b"w1", b"2/9")]


def test_two_files(folder: Path) -> None:
    """With --against it shows what differs of two files, run by run and count by count."""
    shutil.copy(folder / "runs.sqlite3", folder / "other.sqlite3")
    same = run_log("verify", "--against", "other.sqlite3", folder=folder, **SQLITE)
    change(folder / "other.sqlite3", "DELETE FROM runs WHERE run = 'r1'")
    change(folder / "other.sqlite3", "UPDATE runs SET result = '{\"n\": 1}' WHERE run = 'r3'")
    change(folder / "other.sqlite3", "UPDATE workflows SET success = success - 1 WHERE workflow = 'w1'")

    ended = run_log("verify", "--against", "other.sqlite3", "-o", "jsonl", folder=folder, **SQLITE)
    shown = run_log("verify", "w1", "--against", "other.sqlite3", folder=folder, **SQLITE)
    missing = run_log("verify", "w9", "--against", "other.sqlite3", folder=folder, **SQLITE)

    of_w1 = {"workflow_id": "w1", "kind": "count", "scope": "all", "begins": None, "here": 2, "there": 1}
    assert [
        *({**of_w1, "name": name} for name in (RunStatus.SUCCESS.value, "successful", "total")),
        {"workflow_id": "w1", "kind": "run", "run_id": "r1", "only_in": "here", "fields": []},
        {"workflow_id": "w1", "kind": "run", "run_id": "r3", "only_in": None, "fields": ["result"]},
    ] == [json.loads(line) for line in ended.out.splitlines()]
    assert (0, 1, 1, 3) == (same.code, ended.code, shown.code, missing.code)
    assert "runs compared: 5, of workflows: 2; nothing differs" in same.err
    assert "only here" in shown.out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "RUN_LOG_BACKEND is 'memory', which only its own process can read; set it to"),
        (("w9",), 3, "there is no workflow 'w9'"),
        (("--against", "nothing.sqlite3"), 3, "there is no file 'nothing.sqlite3'"),
        (("--against", "runs.sqlite3"), 2, "pass another one"),
        (("--against", "other.sqlite3", "--repair"), 2, "without --against"),
        (("--against", "other.sqlite3", "--record"), 2, "without --against"),
    ],
)
def test_what_is_asked_wrongly(folder: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    """What is not there exits 3, what makes no sense 2, and nothing is made or changed."""
    settings = SQLITE if arguments else {}

    ended = run_log("verify", *arguments, folder=folder, **settings)

    assert (code, "") == (ended.code, ended.out)
    assert told in ended.err
    assert ["runs.sqlite3"] == [path.name for path in folder.glob("*.sqlite3")]
