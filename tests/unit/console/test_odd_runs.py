"""Runs that are hard to show, on terminals that know few characters, or that nobody reads."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from run_log.core import PauseRequest, RunStatus, Step, StepStatus, Transition
from run_log.stores import SQLiteRunLogService, page_json
from run_log.stores.listings import HasJson
from run_log.testing import a_run, an_event

from .files import in_file
from .processes import run_log

pytestmark = pytest.mark.process

SQLITE = {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": "runs.sqlite3", "COLUMNS": "80"}
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
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

HOSTILE: dict[str, dict[str, Any]] = {
    **ODD,
    "numbers": {"result": {"large": -(10**4_000), "none": [math.nan, -math.inf]}},
    "last": {"completed_at": datetime.max.replace(tzinfo=UTC), "labels": {"a": "\udfff"}},
    "paused": {
        "status": RunStatus.PAUSED,
        "pause": PauseRequest(form={"enum": [[10**30]]}, values={"\ud800": ["\x00"]}, choices=("\u202e",)),
    },
}
"""And runs with values that JSON, or an encoder of it, does not have."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a file that holds the odd runs."""
    events = [
        an_event(a_run(id=run_id, workflow_id=workflow_id, **fields))
        for workflow_id, runs in (("odd", ODD), ("hostile", HOSTILE))
        for run_id, fields in runs.items()
    ]
    in_file(tmp_path / "runs.sqlite3", lambda log: log.apply(events))
    return tmp_path


@pytest.mark.parametrize(
    ("encoding", "face"), [("ascii", r"\U0001f600"), ("cp1252", r"\U0001f600"), ("utf-8", "\U0001f600")]
)
def test_a_terminal_of_any_encoding(folder: Path, encoding: str, face: str) -> None:
    """A terminal that lacks characters is shown their escapes; no run takes the page away."""
    ended = run_log("runs", "list", "odd", folder=folder, encoding=encoding, **SQLITE)

    assert (0, "") == (ended.code, ended.err)
    assert len(ODD) == sum(" 2026-01-01 00:00:00 " in line for line in ended.out.splitlines())
    assert f"{face}\\x1b[2J" in ended.out


def test_json_of_odd_runs(folder: Path) -> None:
    """The JSON of a page gives the values that were kept, also on a terminal that knows few characters."""
    ended = run_log("runs", "list", "odd", "-o", "json", folder=folder, encoding="ascii", **SQLITE)

    runs = {run["id"]: run for run in json.loads(ended.out)["runs"]}
    assert (0, "") == (ended.code, ended.err)
    assert set(ODD) == set(runs)
    assert (ODD["deep"]["result"], 1.8e18) == (runs["deep"]["result"], runs["long"]["duration_ms"])


def test_the_same_text_as_the_librarys(folder: Path) -> None:
    """The command line prints of each run, and of a page of them, what the library says in JSON."""
    everything = run_log("runs", "list", "hostile", "-o", "jsonl", folder=folder, **SQLITE)
    page = run_log("runs", "list", "hostile", "--limit", "4", "-o", "json", folder=folder, **SQLITE)
    histories = [
        run_log("runs", "history", "hostile", run_id, "-o", "jsonl", folder=folder, **SQLITE)
        for run_id in HOSTILE
    ]

    runs, _ = in_file(folder / "runs.sqlite3", lambda log: log.list_runs("hostile"))
    some, cursor = in_file(folder / "runs.sqlite3", lambda log: log.list_runs("hostile", limit=4))
    told = [in_file(folder / "runs.sqlite3", _history_of(run_id)) for run_id in HOSTILE]
    assert set(HOSTILE) == {run.id for run in runs}
    assert [json.dumps(run.to_json(), allow_nan=False) for run in runs] == everything.out.splitlines()
    assert cursor is not None
    assert page_json("runs", some, cursor) == json.loads(page.out)
    assert [[json.dumps(one.to_json()) for one in history] for history in told] == [
        ended.out.splitlines() for ended in histories
    ]


Ask = Callable[[SQLiteRunLogService], Awaitable[Sequence[HasJson]]]

ONE_THING: list[tuple[list[str], Ask]] = [
    (["runs", "show", "hostile", "deep"], lambda log: _only(log.get_run("hostile", "deep"))),
    (["runs", "stats", "hostile"], lambda log: _only(log.get_summary("hostile"))),
]

PAGES: list[tuple[list[str], str, Ask]] = [
    (["runs", "failures", "hostile"], "failures", lambda log: log.list_failures("hostile")),
    (["runs", "steps", "hostile", "stepped"], "steps", lambda log: log.get_steps("hostile", "stepped")),
    (["workflows"], "workflows", lambda log: _first_page(log.list_workflows())),
]


async def _only(thing: Awaitable[HasJson | None]) -> Sequence[HasJson]:
    found = await thing
    return [] if found is None else [found]


async def _first_page(page: Awaitable[tuple[Sequence[HasJson], str | None]]) -> Sequence[HasJson]:
    return (await page)[0]


@pytest.mark.parametrize(("arguments", "ask"), ONE_THING, ids=["run", "summary"])
def test_the_same_text_of_one_thing(folder: Path, arguments: list[str], ask: Ask) -> None:
    """The command line prints of one thing what the library says in JSON."""
    (before,) = in_file(folder / "runs.sqlite3", ask)
    ended = run_log(*arguments, "-o", "jsonl", folder=folder, **SQLITE)
    (after,) = in_file(folder / "runs.sqlite3", ask)

    # A summary is of another day after midnight.
    assert ended.out.strip() in {json.dumps(thing.to_json()) for thing in (before, after)}


@pytest.mark.parametrize(("arguments", "name", "ask"), PAGES, ids=["failures", "steps", "workflows"])
def test_the_same_page(folder: Path, arguments: list[str], name: str, ask: Ask) -> None:
    """The command line prints of a page what the library says in JSON, with nothing about a next one."""
    step = Step(key="a", name="\x1b[2J", status=StepStatus.RUNNING, started_at=NOON, version=1)
    event = an_event(workflow_id="hostile", id="stepped").model_copy(update={"steps": (step,)})
    in_file(folder / "runs.sqlite3", lambda log: log.apply([event]))

    ended = run_log(*arguments, "-o", "json", folder=folder, **SQLITE)

    things = in_file(folder / "runs.sqlite3", ask)
    assert things
    assert page_json(name, things) == json.loads(ended.out)


def _history_of(run_id: str) -> Callable[[SQLiteRunLogService], Awaitable[tuple[Transition, ...]]]:
    return lambda log: log.get_history("hostile", run_id)


def test_an_error_that_names_an_odd_id(folder: Path) -> None:
    """An error is one line that commands no terminal, whatever the id that it is about."""
    odd = "\x1b[2J\n\U0001f600"
    ended = run_log("runs", "show", "odd", odd, folder=folder, encoding="ascii", **SQLITE)

    told = r"run-log: there is no run '\x1b[2J\n\U0001f600' of workflow 'odd'"
    assert (3, "", 1) == (ended.code, ended.out, ended.err.count("\n"))
    assert ended.err.startswith(told)


def test_a_pipe_that_nobody_reads(folder: Path) -> None:
    """A command whose reader has left, as ``head`` does, ends with 0 and says nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", MAIN, "runs", "list", "odd"],
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


def test_a_run_of_which_only_progress_is_known_has_a_history(tmp_path: Path) -> None:
    """It is there, but no transition is: that is no error, unlike a run that nobody has heard of."""
    said = an_event(status=RunStatus.RUNNING).model_copy(update={"is_progress": True})
    in_file(tmp_path / "runs.sqlite3", lambda log: log.apply([said]))
    ended = run_log("runs", "history", *said.key, "-o", "json", folder=tmp_path, **SQLITE)

    assert (0, {"transitions": []}) == (ended.code, json.loads(ended.out))
    assert 3 == run_log("runs", "history", "workflow-1", "other", folder=tmp_path, **SQLITE).code
