"""Commands that read make nothing, and say with an exit code that there is nothing to read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from tests.e2e.command_line import Ended, called

from run_log.core import RunStatus
from run_log.testing import a_run

from .files import in_file

OF_A_RUN = [
    "runs show w r",
    "runs history w r",
    "runs watch w r",
    "runs resume w r --by ann",
    "runs reject w r --by ann",
]
READING = [
    *OF_A_RUN,
    "runs list w",
    "runs list --failed",
    "runs count w",
    "runs count --failed",
    "runs failures",
    "runs stats w",
    "runs pending",
    "runs watch",
    "workflows",
    "verify",
    "verify --repair",
    "sweep --older-than 1h",
    "sweep --older-than 1h --mark",
]
"""What cannot do anything where no run was recorded, and is made by none of it."""

Call = Callable[[str], Ended]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Return what runs a command in a folder of its own, with the back end sqlite."""
    monkeypatch.setenv("RUN_LOG_BACKEND", "sqlite")
    in_folder = partial(called, folder=tmp_path)
    return lambda command: in_folder(*command.split())


def save(file: Path) -> None:
    """Save a paused run into *file*."""
    in_file(file, lambda log: log.save_run(a_run(workflow_id="w", id="r", status=RunStatus.PAUSED)))


@pytest.mark.parametrize("command", READING)
def test_a_file_that_is_not_there(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A command that reads a file that is not there exits 3, names it and its setting, and makes none."""
    monkeypatch.setenv("RUN_LOG_SQLITE_PATH", str(tmp_path / "typo.db"))

    ended = call(command)

    assert (3, "", []) == (ended.code, ended.out, list(tmp_path.iterdir()))
    (line,) = ended.err.splitlines()
    assert line.startswith(f"run-log: there is no file '{tmp_path}/typo.db'")
    assert "RUN_LOG_SQLITE_PATH" in line


@pytest.mark.parametrize("command", READING)
def test_a_file_that_is_empty(call: Call, tmp_path: Path, command: str) -> None:
    """A command that reads an empty file exits 3, says that no run is in it, and leaves it empty."""
    (tmp_path / "run-log.sqlite3").touch()

    ended = call(command)

    assert (3, "") == (ended.code, ended.out)
    assert f"there is no run in the file 'run-log.sqlite3' ({tmp_path}/run-log.sqlite3)" in ended.err
    assert {"run-log.sqlite3": 0} == {path.name: path.stat().st_size for path in tmp_path.iterdir()}


@pytest.mark.parametrize("command", [*READING, "emit w"])
def test_another_programs_file(call: Call, tmp_path: Path, command: str) -> None:
    """A command that finds another program's database exits 2, names it, and leaves it as it is."""
    file = tmp_path / "run-log.sqlite3"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("CREATE TABLE theirs (x)")
    before = file.read_bytes()

    ended = call(command)

    assert (2, "") == (ended.code, ended.out)
    assert f"{file} is another program's database; set RUN_LOG_SQLITE_PATH" in ended.err
    assert (before, [file]) == (file.read_bytes(), list(tmp_path.iterdir()))


@pytest.mark.parametrize("command", [*READING, "emit w"])
@pytest.mark.parametrize("path", [":memory:", "file:runs.db"])
def test_what_is_no_path(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, command: str
) -> None:
    """A setting that names no file exits 2, and says how runs are kept in memory."""
    monkeypatch.setenv("RUN_LOG_SQLITE_PATH", path)

    ended = call(command)

    assert (2, "", []) == (ended.code, ended.out, list(tmp_path.iterdir()))
    assert f"RUN_LOG_SQLITE_PATH is {path!r}" in ended.err
    assert "RUN_LOG_BACKEND=memory" in ended.err


def test_a_command_that_saves_makes_it(call: Call, tmp_path: Path) -> None:
    """Emitting a state makes the file, once, and says where; one that cannot be saved makes none."""
    refused, left = call("emit w --status done"), list(tmp_path.iterdir())
    first, second = call("emit w --run r"), call("emit w --run r2")
    listed = call("runs list w -o json")

    assert (2, "", []) == (refused.code, refused.out, left)
    assert "made" not in refused.err
    assert Ended(code=0, out="r\n", err=f"made {tmp_path}/run-log.sqlite3\n") == first
    assert Ended(code=0, out="r2\n", err="") == second
    assert {"r", "r2"} == {run["id"] for run in json.loads(listed.out)["runs"]}


def test_what_a_run_keeps(call: Call) -> None:
    """A run that is emitted again keeps its trigger and its labels, unless others are given."""
    call("emit w --run r --status running --trigger cron --label team=a --label n=1=2")
    call("emit w --run r")
    kept = json.loads(call("runs show w r -o json").out)
    call("emit w --run r --label team=b --trigger webhook")
    given = json.loads(call("runs show w r -o json").out)

    assert ("cron", {"n": "1=2", "team": "a"}) == (kept["trigger_type"], kept["labels"])
    assert ("webhook", {"team": "b"}) == (given["trigger_type"], given["labels"])


def test_counting(call: Call) -> None:
    """``runs count`` counts by the options of ``runs list``, and prints the number, or a document of it."""
    for options in ("--status failed --label team=a", "--status failed", "--label team=a --trigger cron"):
        call(f"emit w {options}")
    call("emit v --status failed --label team=a --label n=1")
    asked = [
        "",
        "w",
        "nowhere",
        "--failed",
        "w --status failed --status success",
        "w --trigger cron",
        "--label team=a --failed",
        "--label team=a --label n=1",
        "--error-type ValueError",
        "--parent w r",
        "--since 1h",
        "--until 1h",
    ]

    counts = [call(f"runs count {options}") for options in asked]
    lengths = [len(call(f"runs list {options} -o jsonl").out.splitlines()) for options in asked]

    assert [Ended(code=0, out=f"{length}\n", err="") for length in lengths] == counts
    assert [4, 3, 0, 3, 3, 1, 2, 1, 0, 0, 4, 0] == lengths
    assert {"runs": 2} == json.loads(call("runs count --failed --label team=a -o json").out)
    assert '{"runs": 0}\n' == call("runs count nowhere -o jsonl").out


def test_the_doctor_makes_nothing(call: Call, tmp_path: Path) -> None:
    """The doctor finds that there is no file, exits 1, and makes none."""
    ended = call("doctor -o json")

    checks = {check["check"]: check for check in json.loads(ended.out)["checks"]}
    assert (1, "", []) == (ended.code, ended.err, list(tmp_path.iterdir()))
    assert ("ok", "wrong") == (checks["settings"]["verdict"], checks["store"]["verdict"])
    assert f"{tmp_path}/run-log.sqlite3" in checks["store"]["found"]


def test_a_run_that_is_not_there(call: Call, tmp_path: Path) -> None:
    """A run that is not there exits 3, whatever is to be done; one that waits for nobody 2, a slow one 5."""
    save(tmp_path / "run-log.sqlite3")

    missing = [call(command.replace("w r", "w gone")) for command in OF_A_RUN]
    late = call("runs watch w r --timeout 0.1")
    answers = [call("runs resume w r --by ann") for _ in range(2)]

    assert {3} == {ended.code for ended in missing}
    assert all("there is no run 'gone' of workflow 'w'" in ended.err for ended in missing)
    assert (5, True) == (late.code, "it may end later" in late.err)
    assert [0, 2] == [ended.code for ended in answers]
    assert "run 'r' of workflow 'w' is running, not paused" in answers[1].err


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("runs list w --status done", "success"),
        ("runs list w --after nowhere", "cursor"),
        ("runs list --label team", "'team' is not a label"),
        ("runs list --label Team=a", "pass a key and its value"),
        ("runs list w --since then", "'then' is not a moment"),
        ("runs count w --status done", "success"),
        ("runs count --label team", "'team' is not a label"),
        ("runs count w --until then", "'then' is not a moment"),
        ("runs stats w --window 91d", "window"),
        ("runs watch --exit-status", "are for one run"),
        ("emit w --data []", "--data is a JSON list"),
        ("emit w --status done", "status"),
        ("emit w --trigger Cron", "a trigger type is a word"),
        ("emit w --label team", "'team' is no label KEY=VALUE"),
        ("emit w --label Team=a", "'Team=a' is no label KEY=VALUE"),
    ],
)
def test_what_cannot_be_used(call: Call, tmp_path: Path, command: str, told: str) -> None:
    """What cannot be used exits 2, and stderr says what to do."""
    save(tmp_path / "run-log.sqlite3")

    ended = call(command)

    assert (2, "") == (ended.code, ended.out)
    assert ended.err.startswith("run-log: ")
    assert told in ended.err


@pytest.mark.parametrize("command", ["runs list w", "workflows", "runs pending"])
def test_a_reader_uses_no_spool(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Where saves are published, a command that reads makes no spool directory and delivers nothing."""
    monkeypatch.setenv("RUN_LOG_BACKEND", "pubsub")
    monkeypatch.setenv("RUN_LOG_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)

    ended = call(command)

    assert (5, "", []) == (ended.code, ended.out, list(tmp_path.iterdir()))
    assert "run-log: Firestore (emulator at 127.0.0.1:1" in ended.err
