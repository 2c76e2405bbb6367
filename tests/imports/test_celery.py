"""Tasks that a real Celery worker has run, imported from its result back end."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.frameworks import Framework

from run_log.core import NotFoundError, RunEvent, RunStatus, TransportUnavailableError
from run_log.projector.imports import CELERY_STATUSES, Found, LeftOut, celery_runs
from run_log.projector.imports.celery import NO_VALUES

from .kit import REDACT

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the addresses of a database with names, arguments and retries, and of one without."""
    # With the database's library, which Celery's own environment does not have.
    celery = Framework("celery-import", ("--extra", "import", "--group", "celery"))
    celery.make()
    folder = tmp_path_factory.mktemp("celery")
    extended, plain = (f"sqlite:///{folder}/{name}.db" for name in ("extended", "plain"))
    ended = celery.run("-m", "tests.imports.celery_program", extended, plain, environ={})
    assert not ended.returncode, ended.stderr
    return extended, plain


@pytest.fixture
def url(urls: tuple[str, str]) -> str:
    """Return the address of the database of results with names, as result_extended stores them."""
    return urls[0]


def read(url: str, **how: Any) -> Mapping[str, Found]:
    """Return what is found by its place in the table."""
    return {found.place: found for found in celery_runs(url, redact=REDACT, **how)}


def runs(found: Mapping[str, Found]) -> dict[str, RunEvent]:
    """Return the events by the id of their task."""
    return {each.what.run.id: each.what for each in found.values() if isinstance(each.what, RunEvent)}


def stored(url: str, sql: str, *values: object) -> list[Any]:
    """Run *sql* in the database."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        return connection.execute(sql, values).fetchall()


def test_tasks_become_runs(url: str) -> None:
    """Each task is a run of its name, with its state, its try, its arguments, its result and its error."""
    found = runs(read(url, zone=ZoneInfo("Europe/Berlin")))
    add, report, fail, flaky = (found[name].run for name in ("add", "report", "fail", "flaky"))

    assert ("shop.add", RunStatus.SUCCESS, 1) == (add.workflow_id, add.status, add.attempt)
    assert ({"args": [1, 2]}, {"value": 3}) == (add.trigger_data, add.result)
    assert {"kwargs": {"password": "[redacted]", "file": "may.csv"}} == report.trigger_data
    assert 3 == report.result["lines"]
    assert (RunStatus.FAILED, "ValueError") == (fail.status, fail.error_type)
    assert str(fail.error).startswith("ValueError: no line 7\nTraceback")
    assert (RunStatus.SUCCESS, 3, {"value": "at last"}) == (flaky.status, flaky.attempt, flaky.result)
    assert "celery" == add.labels["queue"]
    age = datetime.now(UTC) - add.started_at
    assert 0 <= age.total_seconds() < 1_800, "Celery's times are in its own time zone"


def test_what_celery_did_not_store_is_left_out(url: str) -> None:
    """A state of the task's own, and a task without a name, are left out with what to pass."""
    reasons = [str(found.what) for found in read(url).values() if isinstance(found.what, LeftOut)]

    assert [
        "its state is unknown (pass --status HALFWAY=STATUS)",
        "Celery did not store its name, as result_extended is off (pass --workflow)",
    ] == reasons
    words = {**CELERY_STATUSES, "halfway": RunStatus.RUNNING}
    found = read(url, workflow_id="tasks", statuses=words)
    assert ("tasks", RunStatus.CANCELLED) == (
        runs(found)["revoked"].run.workflow_id,
        runs(found)["revoked"].status,
    )
    (reason,) = (str(each.what) for each in found.values() if isinstance(each.what, LeftOut))
    assert "it has no time, as Celery stores when a task ended alone" == reason


def test_tasks_without_names_get_one(urls: tuple[str, str]) -> None:
    """Without result_extended, all tasks are runs of the workflow that is given."""
    (found,) = runs(read(urls[1], workflow_id="tasks")).values()

    assert ("tasks", "add", {"value": 3}) == (*found.key, found.run.result)


def test_the_database_is_only_read(url: str) -> None:
    """The file is the same afterwards, and reading it again finds the same events."""
    file = Path(url.removeprefix("sqlite:///"))
    before = file.read_bytes()
    first, second = read(url), read(url)

    assert runs(first) == runs(second)
    assert before == file.read_bytes()
    assert 4 == len(runs(first))


def test_results_of_older_versions_are_read_without_running_code(url: str, tmp_path: Path) -> None:
    """Pickled results, as Celery before 5.7 stores them, are read if they are plain; others run no code."""
    copy = tmp_path / "older.db"
    copy.write_bytes(Path(url.removeprefix("sqlite:///")).read_bytes())
    of_file = f"sqlite:///{copy}"
    failure = {"exc_type": "KeyError", "exc_message": ("a",), "exc_module": "shop.errors"}
    trap = pickle.dumps(Trap(str(tmp_path / "trapped")))
    for task, value in (
        ("add", pickle.dumps({"n": [1, None]})),
        ("fail", pickle.dumps(failure)),
        ("flaky", trap),
    ):
        stored(of_file, "UPDATE celery_taskmeta SET result = ? WHERE task_id = ?", value, task)
    found = read(of_file)
    add, fail, flaky = (runs(found)[name].run for name in ("add", "fail", "flaky"))

    assert {"n": [1, None]} == add.result
    assert ("shop.errors.KeyError", "KeyError: a") == (fail.error_type, str(fail.error).partition("\n")[0])
    assert {} == flaky.result
    assert [(NO_VALUES,)] == [each.without for each in found.values() if each.without]
    assert not (tmp_path / "trapped").exists()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the call that would be made."""
        return (open, (self.path, "w"))


def test_a_database_that_is_none_is_an_error(tmp_path: Path) -> None:
    """A file or table that is not there is an error, and nothing is made; so is a file of another kind."""
    with pytest.raises(NotFoundError, match="there is no file"):
        read(f"sqlite:///{tmp_path}/none.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE a (b)")
    with pytest.raises(NotFoundError, match="has no table 'celery_taskmeta'; is it the database of Celery's"):
        read(f"sqlite:///{tmp_path}/other.db")
    (tmp_path / "text.db").write_text("no database" * 100)
    with pytest.raises(TransportUnavailableError, match="file is not a database"):
        read(f"sqlite:///{tmp_path}/text.db")

    assert not (tmp_path / "none.db").exists()
