"""Reading a file makes nothing and changes nothing: whether it is there, ours, older, or may be written."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from run_log.core import (
    ConfigurationError,
    NotFoundError,
    RunNotFoundError,
    RunStatus,
    Settings,
    StoreUnavailableError,
)
from run_log.stores import RunLogService, SQLiteRunLogService
from run_log.stores.audit import verify
from run_log.stores.sqlite._connection import Connection, Opened, Reading
from run_log.stores.sqlite._queries import ADDED_COLUMNS
from run_log.stores.sqlite._schema import APPLICATION_ID, FIRST_WITH_ADDED, MIGRATIONS, migrate
from run_log.stores.stored.fields import PROGRESS_DIGEST, STEPS
from run_log.testing import a_run

PATIENCE = 30.0


async def _counted(log: RunLogService, workflow_id: str | None, **asked: Any) -> object:
    return await log.count_runs(workflow_id, **asked)


ADDED_FILTERS: dict[str, Any] = {"label": ("team", "a"), "parent": ("w", "r"), "error_type": "ValueError"}


async def _listed(log: RunLogService, workflow_id: str | None, **asked: Any) -> object:
    return await log.list_runs(workflow_id, **asked)


QUERIES: dict[str, Callable[[RunLogService], Awaitable[object]]] = {
    "list_runs": lambda log: log.list_runs("w"),
    "list_failures": lambda log: log.list_failures(),
    "list_runs, all": lambda log: log.list_runs(None),
    "list_runs, all, by status": lambda log: log.list_runs(None, status=["failed", "skipped"]),
    "list_runs, all, light": lambda log: log.list_runs(None, payloads=False, order="oldest"),
    **{
        f"list_runs, {workflow_id}, by {name}": partial(_listed, workflow_id=workflow_id, **{name: value})
        for workflow_id in ("w", None)
        for name, value in ADDED_FILTERS.items()
    },
    "count_runs, all": lambda log: log.count_runs(),
    "count_runs, by labels": lambda log: log.count_runs("w", label={"team": "a", "stage": "x"}),
    "count_runs, by everything": lambda log: log.count_runs(**ADDED_FILTERS, status="failed"),
    **{
        f"count_runs, {workflow_id}, by {name}": partial(_counted, workflow_id=workflow_id, **{name: value})
        for workflow_id in ("w", None)
        for name, value in ADDED_FILTERS.items()
    },
    "get_run": lambda log: log.get_run("w", "r"),
    "get_stats": lambda log: log.get_stats("w"),
    "get_summary": lambda log: log.get_summary("w", timedelta(days=1)),
    "get_notices": lambda log: log.get_notices(),
    "get_as_of": lambda log: log.get_as_of("w"),
    "get_pending_runs": lambda log: log.get_pending_runs(),
    "get_latest_run": lambda log: log.get_latest_run("w"),
    "get_history": lambda log: log.get_history("w", "r"),
    "list_workflows": lambda log: log.list_workflows(),
    "list_pending": lambda log: log.list_pending(),
    "list_stale": lambda log: log.list_stale(timedelta(hours=1)),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where a file is to be that is not there yet, in a folder of its own."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "runs.sqlite3"


def state_of(folder: Path) -> dict[str, object]:
    """Return what is in *folder*, and when each was changed."""
    return {
        path.name: (path.is_dir() or path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()
    }


def times_of(folder: Path) -> dict[str, int]:
    """Return when each thing in *folder* was changed."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


async def saved(file: Path, *names: str) -> None:
    """Save a run of each name, and let go of the file."""
    service = SQLiteRunLogService(path=file)
    for name in names:
        await service.save_run(a_run(workflow_id="w", id=name, status=RunStatus.RUNNING))
    await service.close()


@pytest.fixture
async def service(file: Path) -> AsyncIterator[SQLiteRunLogService]:
    """Yield a service of a file that is not there."""
    made = SQLiteRunLogService(path=file)
    yield made
    await made.close()


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
async def test_a_file_that_is_not_there(
    service: SQLiteRunLogService, file: Path, query: Callable[[RunLogService], Awaitable[object]]
) -> None:
    """Each query finds in a file that is not there what it finds in an empty one, and makes none."""
    found = await query(service)
    made = state_of(file.parent)
    await saved(file, "another-r")
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for table in ("runs", "workflows", "counters"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names

    assert {} == made
    assert await query(service) == found


async def test_a_folder_that_is_not_there(file: Path) -> None:
    """Where not even the folder is there, queries find nothing and make none."""
    service = SQLiteRunLogService(path=file.parent / "no" / "folder" / "runs")

    assert ([], None) == await service.list_runs("w")
    await service.close()
    assert {} == state_of(file.parent)


async def test_an_audit_makes_nothing(service: SQLiteRunLogService, file: Path) -> None:
    """An audit of a file that is not there finds no workflow, and makes none."""
    assert [] == [one async for one in verify(service.audit())]
    assert {} == state_of(file.parent)


async def test_answers_make_nothing(service: SQLiteRunLogService, file: Path) -> None:
    """An answer to a run of a file that is not there is an error, and makes none; nor does a mark."""
    for answered in (
        service.resume("w", "r", answered_by="ann"),
        service.mark_lost("w", "r", older_than=timedelta(0)),
    ):
        with pytest.raises(RunNotFoundError):
            await answered

    assert {} == state_of(file.parent)


async def test_it_is_told_once(
    service: SQLiteRunLogService, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """That a file is not there is logged once, with its path, until it is made and lost again."""
    caplog.set_level(logging.WARNING)
    for query in QUERIES.values():
        await query(service)
    (first,) = caplog.records

    await service.save_run(a_run(workflow_id="w"))
    assert 1 == (await service.get_stats("w"))["total"]

    assert ("run_log_file_not_there", str(file)) == (first.message.split()[0], vars(first)["path"])
    assert [first] == caplog.records


async def test_a_file_that_comes(service: SQLiteRunLogService, file: Path) -> None:
    """What another process writes into a file that was not there is seen at once, by a watch too."""
    async with service.watch() as watch, asyncio.timeout(PATIENCE):
        before = await service.get_stats("w")
        await saved(file, "r1", "r2")
        updates = [await anext(watch) for _ in range(2)]
    async with service.watch(since_cursor=updates[0].cursor) as watch, asyncio.timeout(PATIENCE):
        again = await anext(watch)

    assert (0, 2) == (before["total"], (await service.get_stats("w"))["total"])
    assert ["r1", "r2", "r2"] == [update.run.id for update in (*updates, again)]


@pytest.mark.parametrize("is_empty", [False, True], ids=["not there", "empty"])
async def test_whether_it_is_there(
    service: SQLiteRunLogService,
    file: Path,
    is_empty: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """Whoever asks first is told that there is no run log, and where; after a save there is one."""
    if is_empty:
        await asyncio.to_thread(file.touch)
    before = state_of(file.parent)

    with pytest.raises(NotFoundError, match="set RUN_LOG_SQLITE_PATH") as caught:
        await service.reach(1.0)
    after = state_of(file.parent)
    await service.save_run(a_run())
    await service.reach(1.0)

    assert str(file) in str(caught.value)
    assert before == after


async def test_a_relative_path_is_told_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not there is named as it was given, and with where that leads."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(NotFoundError) as caught:
        await SQLiteRunLogService(path="typo.db").reach(1.0)

    assert f"there is no file 'typo.db' ({tmp_path}/typo.db)" in str(caught.value)


def _no_database(file: Path) -> None:
    file.write_bytes(b"no database at all" * 100)


def _another_programs(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("CREATE TABLE theirs (x)")


async def _reach(log: RunLogService) -> None:
    await log.reach(1.0)


def _newer(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as newer:
        newer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_no_database, "no database, or a damaged one"),
        (_another_programs, "another program's database"),
        (_newer, "newer run-log"),
        (Path.mkdir, "cannot be opened: it is no file"),
        (os.mkfifo, "cannot be opened: it is no file"),
    ],
    ids=["no database", "another program's", "newer", "a directory", "a pipe"],
)
@pytest.mark.parametrize("ask", [*QUERIES.values(), _reach], ids=[*QUERIES, "reach"])
async def test_a_file_that_is_none_of_ours(
    service: SQLiteRunLogService,
    file: Path,
    make: Callable[[Path], object],
    told: str,
    ask: Callable[[RunLogService], Awaitable[object]],
) -> None:
    """What is no run log is an error that names it, for every query, and is left as it is."""
    make(file)
    before = times_of(file.parent)

    with pytest.raises(ConfigurationError, match=told) as caught:
        await ask(service)

    assert str(file) in str(caught.value)
    assert before == times_of(file.parent)


async def test_a_path_that_cannot_be_looked_at(tmp_path: Path) -> None:
    """A path that the system refuses is an error that says why, and what to set."""
    service = SQLiteRunLogService(path=tmp_path / ("x" * 300))

    with pytest.raises(ConfigurationError, match=r"cannot be looked at \(.*\); .*set RUN_LOG_SQLITE_PATH"):
        await service.get_stats("w")
    await service.close()


def _make_older(file: Path, version: int) -> None:
    """Make *file* as that version of the schema has it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("DROP TABLE notices")
        connection.execute(f"PRAGMA user_version = {version}")
        if version >= FIRST_WITH_ADDED:
            return
        connection.execute("ALTER TABLE workflows DROP COLUMN cancelled")
        connection.execute("DROP TABLE labels")
        indexes = "SELECT name FROM sqlite_master WHERE name LIKE 'all_by_%' OR name GLOB 'runs_by_[pe]*'"
        for (name,) in connection.execute(indexes).fetchall():
            connection.execute(f"DROP INDEX {name}")
        for name in (*ADDED_COLUMNS, PROGRESS_DIGEST, STEPS):
            connection.execute(f"ALTER TABLE runs DROP COLUMN {name}")
        if version == 1:
            connection.execute("DROP TABLE repairs")


async def test_a_reader_sees_what_a_writer_brings_forward(file: Path) -> None:
    """Who reads an older file while a writer brings it forward sees what only the newer one can hold."""
    await saved(file, "r")
    _make_older(file, 2)
    reader, writer = SQLiteRunLogService(path=file), SQLiteRunLogService(path=file)
    before = await reader.get_run("w", "r")

    await writer.save_run(a_run(workflow_id="w", id="r", status=RunStatus.CANCELLED, labels={"team": "a"}))
    after, stats = await reader.get_run("w", "r"), await reader.list_workflows()
    await reader.close()
    await writer.close()

    assert ({}, {"team": "a"}) == (before and before.labels, after and after.labels)
    assert {RunStatus.CANCELLED: 1} == stats[0][0].by_status


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
async def test_an_older_file_stays_as_it_is(version: int, file: Path) -> None:
    """A file that an earlier version made is read and verified as it is; a save brings it forward."""
    await saved(file, "r")
    _make_older(file, version)
    before = state_of(file.parent)
    service = SQLiteRunLogService(path=file)

    for query in QUERIES.values():
        await query(service)
    everything, _ = await service.list_runs(None)
    by_status, _ = await service.list_runs(None, status="running")
    labelled, _ = await service.list_runs("w", label=("team", "a"))
    counts = [
        await service.count_runs(),
        await service.count_runs("w", status="running"),
        await service.count_runs("w", **ADDED_FILTERS),
        await service.count_runs(label={"team": "a", "stage": "x"}),
    ]
    (verified,) = [one async for one in verify(service.audit())]
    await service.close()
    after = state_of(file.parent)
    await saved(file, "r2")

    with closing(sqlite3.connect(file)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    assert (1, False) == (verified.runs, verified.differs)
    assert (["r"], ["r"], []) == tuple([run.id for run in runs] for runs in (everything, by_status, labelled))
    assert [1, 1, 0, 0] == counts
    assert before == after
    assert len(MIGRATIONS) == version


class Unwritable:
    """A file in a place that this process may read only, as far as its reader knows."""

    def __init__(self, file: Path) -> None:
        self._reading = Reading(str(file), busy_seconds=1.0, may_write=lambda _path: False)

    def ids(self) -> list[str]:
        """Return the ids of the runs in it."""
        return self.read(lambda connection: connection.execute("SELECT id FROM runs ORDER BY id").fetchall())

    def read(self, work: Callable[[sqlite3.Connection], list[tuple[str]]]) -> list[str]:
        """Return what *work* finds, as the one connection of it does."""
        opened: Opened = self._reading.open()
        with closing(opened.connection) as connection:
            return [name for (name,) in work(connection)]


async def test_where_nothing_may_be_made(file: Path) -> None:
    """Where nothing may be written, nothing is made beside a file that nobody uses, not for a moment."""
    await saved(file, "r")
    seen: list[dict[str, object]] = []

    def work(connection: sqlite3.Connection) -> list[tuple[str]]:
        found = connection.execute("SELECT id FROM runs").fetchall()
        seen.append(state_of(file.parent))
        return found

    before = state_of(file.parent)
    found = Unwritable(file).read(work)

    assert ["r"] == found
    assert [before, before] == [*seen, state_of(file.parent)]


async def test_where_somebody_else_writes(file: Path) -> None:
    """Where nothing may be written, what the owner writes meanwhile is seen, also what is beside the file."""
    owner = SQLiteRunLogService(path=file)
    await owner.save_run(a_run(workflow_id="w", id="r1"))
    reader = Unwritable(file)

    first = reader.ids()
    await owner.save_run(a_run(workflow_id="w", id="r2"))
    second, names = reader.ids(), sorted(state_of(file.parent))
    await owner.close()
    third = reader.ids()

    assert [["r1"], ["r1", "r2"], ["r1", "r2"]] == [first, second, third]
    assert ["runs.sqlite3", "runs.sqlite3-shm", "runs.sqlite3-wal"] == names


class Moving(Connection):
    """A connection that reads a place that it may not write, with what it reads changed under it."""

    def __init__(self, path: str) -> None:
        super().__init__(path, busy_seconds=1.0, writes=False)
        self._reading = Reading(path, busy_seconds=1.0, may_write=lambda _path: False)


async def test_a_file_that_changes_while_it_is_read(file: Path) -> None:
    """What was read while the file changed is read again; where that never ends, the caller is told."""
    await saved(file, "r1")
    reader, changes, left = Moving(str(file)), 0, 1

    def work(connection: sqlite3.Connection) -> int:
        nonlocal changes
        found = len(connection.execute("SELECT id FROM runs").fetchall())
        if changes < left:
            changes += 1
            asyncio.run(saved(file, f"more-{changes}"))
            if changes % 2:
                raise sqlite3.DatabaseError("torn")
        return found

    once = await reader.run(work)
    left = 1_000
    with pytest.raises(StoreUnavailableError, match="changes whenever it is read; try again"):
        await reader.run(work)
    await reader.close()

    assert 2 == once


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Yield a folder that everybody may read, and pytest's own nobody but its owner."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.process
async def test_a_folder_of_somebody_elses(public_folder: Path) -> None:
    """Who may neither write the file nor its folder reads it, and leaves nothing there."""
    file = public_folder / "runs.sqlite3"
    await saved(file, "r")
    file.chmod(0o444)
    before = state_of(file.parent)

    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgid(65_534)
            os.setuid(65_534)
            found = Reading(str(file), busy_seconds=1.0).open().connection.execute("SELECT id FROM runs")
            status = 0 if found.fetchall() == [("r",)] else 2
        finally:
            os._exit(status)
    _, ended = await asyncio.to_thread(os.waitpid, child, 0)

    assert 0 == ended
    assert before == state_of(file.parent)


@pytest.mark.parametrize(
    "path", [":memory:", "", "  ", "file:runs.db", "file:///tmp/runs.db?mode=ro", "a\0b"]
)
def test_what_is_no_path(path: str) -> None:
    """What SQLite would not take for a file, or nobody else would, is refused with what to set."""
    with pytest.raises(ConfigurationError, match="RUN_LOG_BACKEND=memory") as caught:
        SQLiteRunLogService(path=path)

    assert repr(path) in str(caught.value)


def test_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``~`` in the setting is the home directory, where no shell has seen to it."""
    monkeypatch.setenv("HOME", str(tmp_path))

    service = SQLiteRunLogService.from_settings(Settings(sqlite_path="~/runs.db"))

    assert str(tmp_path / "runs.db") == service.place


def test_a_file_without_a_run_log(file: Path) -> None:
    """A file that has all tables and no run is a run log."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        migrate(connection, str(file))

    asyncio.run(SQLiteRunLogService(path=file).reach(1.0))
