"""The embedded file's own promises: threads, loops, calls cut short, and what is wrong with a file."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from run_log.core import (
    ConfigurationError,
    InvalidCursorError,
    Outcome,
    RunStatus,
    StoreError,
    StoreUnavailableError,
    UnreadableRunError,
    WriteRefusedError,
)
from run_log.core.clock import PROCESS_CLOCK
from run_log.projector import Projector
from run_log.stores import SQLiteRunLogService
from run_log.stores.listings import encode_parts
from run_log.stores.sqlite._connection import Connection
from run_log.stores.sqlite._schema import MIGRATIONS, migrate
from run_log.testing import a_run, an_event

T = TypeVar("T")

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
PATIENCE = 30.0
"""Seconds after which a test gives up waiting; nothing takes that long."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where a file is to be that is not there yet."""
    return tmp_path / "runs.sqlite3"


@contextmanager
def raw(file: Path) -> Generator[sqlite3.Connection]:
    """Yield a connection of somebody else's to *file*; each statement takes effect at once."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        yield connection


async def saved(file: Path, count: int = 1) -> None:
    """Save so many runs into *file*, and let go of it."""
    service = SQLiteRunLogService(path=file)
    for number in range(count):
        await service.save_run(a_run(workflow_id="w", id=f"r{number}"))
    await service.close()


async def damage(file: Path, change: str, *values: object) -> None:
    """Save one run into *file*, and have something else do *change* to it."""
    await saved(file)
    with raw(file) as connection:
        connection.execute(change, values)


def folder_of(file: Path) -> list[str]:
    """Return the names in the file's directory."""
    return sorted(path.name for path in file.parent.iterdir())


def mode_of(file: Path) -> int:
    """Return who may do what with *file*."""
    return stat.S_IMODE(file.stat().st_mode)


def overwrite(file: Path) -> None:
    """Put rubbish in the place of all pages of *file* but the first."""
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.seek(4_096)
        opened.write(b"\xa5" * (size - 4_096))


class Reachable(SQLiteRunLogService):
    """A service of which the connections can be reached."""

    async def when_writing(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what *work* does with the connection that writes, in its thread."""
        return await self._writer.run(work)

    async def when_reading(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what *work* does with the connection that reads, in its thread."""
        return await self._reader.run(work)


@pytest.fixture
async def service(file: Path) -> AsyncIterator[Reachable]:
    """Yield a service of *file*, which nothing is read from or written to yet."""
    made = Reachable(path=file)
    yield made
    await made.close()


class Held:
    """Work that stays in a connection's thread until it is told to go on."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.gate = threading.Event()

    def __call__(self, _connection: sqlite3.Connection) -> None:
        """Stay."""
        self.inside.set()
        assert self.gate.wait(PATIENCE)


async def test_a_reopened_file_shows_the_same(file: Path) -> None:
    """What is read from a reopened file equals what was read before: runs, stats, histories, pages."""

    async def read(service: SQLiteRunLogService) -> Sequence[object]:
        page, cursor = await service.list_runs("w", limit=3)
        return (
            page,
            await service.list_runs("w", limit=3, start_after=cursor),
            await service.get_history("w", "r1"),
            await service.list_workflows(),
            await service.get_pending_runs(),
        )

    first = SQLiteRunLogService(path=file)
    for number, status in enumerate(RunStatus):
        await first.apply([an_event(workflow_id="w", id=f"r{number}", status=status)])
    before = await read(first)
    await first.close()
    second = SQLiteRunLogService(path=str(file))
    after = await read(second)
    await second.close()

    assert before == after


async def test_nothing_is_left_behind(file: Path) -> None:
    """A service closed twice leaves neither a thread nor a file but its own, and opens again when used."""
    threads = set(threading.enumerate())

    await saved(file)
    service = SQLiteRunLogService(path=file)
    await service.list_runs("w")
    await service.close()
    await service.close()
    await service.save_run(a_run(workflow_id="w", id="later"))
    assert {"total": 2, "successful": 2} == await service.get_stats("w")
    await service.close()
    await SQLiteRunLogService(path=file).close()

    for thread in set(threading.enumerate()) - threads:
        await asyncio.to_thread(thread.join, PATIENCE)
    assert [] == [one for one in set(threading.enumerate()) - threads if "sqlite" in one.name]
    assert ["runs.sqlite3"] == folder_of(file)


async def test_a_forgotten_service_lets_go(file: Path) -> None:
    """A service that nobody holds any more closes the file without a warning, and ends its threads."""
    threads = set(threading.enumerate())
    service = SQLiteRunLogService(path=file)
    await service.save_run(a_run())
    own = [one for one in set(threading.enumerate()) - threads if "sqlite" in one.name]

    del service
    gc.collect()

    for thread in own:
        await asyncio.to_thread(thread.join, PATIENCE)
    assert [False] == [thread.is_alive() for thread in own]
    assert ["runs.sqlite3"] == folder_of(file)


async def test_the_file_stays_where_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path means the directory of the moment when the service was made."""
    monkeypatch.chdir(file.parent)
    service = SQLiteRunLogService(path="runs.sqlite3")
    monkeypatch.chdir("/")

    await service.save_run(a_run())
    await service.close()

    assert ["runs.sqlite3"] == folder_of(file)
    assert f"SQLiteRunLogService(path={str(file)!r})" == repr(service)


async def test_only_its_owner_may_read_the_file(file: Path) -> None:
    """A file that is made, and those beside it, can be read by their owner only; one that is there stays."""
    service = SQLiteRunLogService(path=file)
    await service.save_run(a_run())
    modes = {mode_of(path) for path in file.parent.iterdir()}
    await service.close()
    chosen = file.with_name("chosen")
    os.close(os.open(chosen, os.O_CREAT, 0o640))
    await saved(chosen)

    assert {0o600} == modes
    assert 0o640 == mode_of(chosen)


async def test_what_returns_is_on_the_disk(file: Path) -> None:
    """Commits wait for the disk, and readers for no writer: synchronous is FULL, the journal a WAL."""
    service = Reachable(path=file)

    def settings(connection: sqlite3.Connection) -> list[object]:
        pragmas = ("synchronous", "journal_mode", "busy_timeout")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]

    found = [await service.when_writing(settings), await service.when_reading(settings)]
    await service.close()

    assert [[2, "wal", 10_000]] * 2 == found


async def test_the_loop_goes_on_meanwhile(service: Reachable) -> None:
    """While a call is in the file the event loop does other things, and queries wait for no write."""
    await service.save_run(a_run(workflow_id="w"))
    held = Held()
    holding = asyncio.create_task(service.when_writing(held))
    assert await asyncio.to_thread(held.inside.wait, PATIENCE)
    saving = asyncio.create_task(service.save_run(a_run(workflow_id="w", id="later")))

    meanwhile = await service.get_stats("w")
    held.gate.set()
    await asyncio.gather(holding, saving)

    assert {"total": 1, "successful": 1} == meanwhile
    assert {"total": 2, "successful": 2} == await service.get_stats("w")


@pytest.mark.parametrize("begun", [True, False], ids=["under way", "waiting"])
async def test_a_cancelled_call(file: Path, begun: bool) -> None:  # noqa: FBT001
    """A call that is cancelled, under way or before, loses no connection and leaves no transaction open."""
    service = Reachable(path=file, busy_timeout=timedelta(0))
    held = Held()
    first = asyncio.create_task(service.when_writing(held))
    assert await asyncio.to_thread(held.inside.wait, PATIENCE)
    second = asyncio.create_task(service.save_run(a_run(workflow_id="w", id="second")))
    await asyncio.sleep(0)

    cancelled = first if begun else second
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    held.gate.set()
    await asyncio.gather(first, second, return_exceptions=True)
    await service.save_run(a_run(workflow_id="w", id="third"))
    with raw(file) as other:
        other.execute("BEGIN IMMEDIATE")

    assert {"total": 1 + begun, "successful": 1 + begun} == await service.get_stats("w")
    await service.close()


async def test_a_locked_file(file: Path) -> None:
    """While somebody else keeps a transaction open, saves fail in bounded time, and queries are answered."""
    await saved(file)
    service = SQLiteRunLogService(path=file, busy_timeout=timedelta(milliseconds=50))
    with raw(file) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreUnavailableError, match=r"locked for 0\.05 s"):
            await service.save_run(a_run(workflow_id="w", id="r1"))
        listed, _ = await service.list_runs("w")

        other.execute("COMMIT")
    await service.save_run(a_run(workflow_id="w", id="r1"))

    assert ["r0"] == [run.id for run in listed]
    assert {"total": 2, "successful": 2} == await service.get_stats("w")
    await service.close()


async def test_a_file_that_is_locked_when_it_is_opened(file: Path) -> None:
    """A new file that another process holds is an error in bounded time, and opened once it is free."""
    service = SQLiteRunLogService(path=file, busy_timeout=timedelta(milliseconds=50))
    with raw(file) as other:
        other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(StoreUnavailableError, match="locked"):
            await service.list_runs("w")
    await service.save_run(a_run(workflow_id="w"))

    assert {"total": 1, "successful": 1} == await service.get_stats("w")
    await service.close()


@pytest.mark.search
async def test_a_new_file_that_many_open_at_once(file: Path) -> None:
    """Services that open one new file at the same moment make it once, and all can use it."""
    for attempt in range(20):
        path = file.with_name(str(attempt))
        services = [SQLiteRunLogService(path=path) for _ in range(8)]

        await asyncio.gather(
            *(service.save_run(a_run(workflow_id="w", id=f"r{n}")) for n, service in enumerate(services)),
            *(service.list_runs("w") for service in services),
        )

        assert {"total": 8, "successful": 8} == await services[0].get_stats("w")
        await asyncio.gather(*(service.close() for service in services))


async def test_a_full_disk(service: Reachable) -> None:
    """A disk that is full is a passing fault: nothing is half-written, and the same call succeeds later."""
    await service.save_run(a_run(workflow_id="w", id="r0"))
    large = an_event(workflow_id="w", id="r1", result={"text": "x" * 500_000})

    def fill(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    await service.when_writing(fill)
    with pytest.raises(StoreUnavailableError, match=r"is full; make room"):
        await service.apply([an_event(workflow_id="w", id="r2"), large])
    between = await service.get_stats("w")
    outcomes = await service.apply([large])

    assert {"total": 1, "successful": 1} == between
    assert [Outcome.APPLIED] == outcomes


async def test_a_value_too_large(service: Reachable) -> None:
    """A value that the file never takes is a write refused for good, and nothing beside it is written."""
    await service.save_run(a_run(workflow_id="w", id="r0"))

    def bound(connection: sqlite3.Connection) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)

    await service.when_writing(bound)
    with pytest.raises(WriteRefusedError, match="cannot hold a value"):
        await service.apply([an_event(workflow_id="w", id="r1"), an_event(result={"text": "x" * 20_000})])

    assert {"total": 1, "successful": 1} == await service.get_stats("w")


async def test_a_file_that_may_not_be_written(service: Reachable) -> None:
    """A file that may not be written is an error that says what to do."""
    await service.when_writing(lambda connection: connection.execute("PRAGMA query_only = 1"))
    with pytest.raises(ConfigurationError, match="give access to it"):
        await service.save_run(a_run())


def _no_database(file: Path) -> None:
    file.write_bytes(b"no database at all" * 100)


def _no_directory(file: Path) -> None:
    file.parent.rmdir()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_no_database, "no database, or a damaged one"),
        (Path.mkdir, "cannot be opened"),
        (_no_directory, "make its directory"),
    ],
    ids=["not a database", "a directory", "no directory"],
)
async def test_a_file_that_cannot_be_used(tmp_path: Path, make: Callable[[Path], object], told: str) -> None:
    """What is no database, is a directory, or has no directory is an error that says what to set."""
    folder = tmp_path / "folder"
    folder.mkdir()
    make(folder / "runs")
    service = SQLiteRunLogService(path=folder / "runs")

    for _ in range(2):
        with pytest.raises(ConfigurationError, match=told) as caught:
            await service.save_run(a_run())
        assert "RUN_LOG_SQLITE_PATH" in str(caught.value)

    await service.close()


async def test_a_corrupted_file(service: Reachable, file: Path) -> None:
    """A file whose pages were overwritten is an error that says what to do, never an empty history."""
    await saved(file, 50)
    overwrite(file)

    with pytest.raises(ConfigurationError, match="restore it from a copy"):
        await service.list_runs("w")


def test_another_programs_database(file: Path) -> None:
    """Another program's database is left as it is, and refused with what to set."""
    with raw(file) as other:
        other.execute("CREATE TABLE theirs (x)")
    before = file.read_bytes()

    with pytest.raises(ConfigurationError, match="another program's database; set RUN_LOG_SQLITE_PATH"):
        asyncio.run(saved(file))

    assert before == file.read_bytes()
    assert [file.name] == folder_of(file)


async def test_an_older_schema(file: Path) -> None:
    """A file of an older schema is brought forward in one transaction, once, and keeps its runs."""
    await saved(file, 3)
    added = (*MIGRATIONS, "ALTER TABLE runs ADD COLUMN extra INTEGER NOT NULL DEFAULT 7;\n")
    broken = (*added, "CREATE TABLE half (x);\nINSERT INTO nowhere VALUES (1);\n")

    with raw(file) as connection:
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            migrate(connection, "f", broken)
        untouched = connection.execute("PRAGMA user_version").fetchone()
        for _ in range(2):
            migrate(connection, "f", added)
        brought = connection.execute("PRAGMA user_version").fetchone()
        runs = connection.execute("SELECT id, extra FROM runs ORDER BY run").fetchall()

    assert (len(MIGRATIONS),) == untouched
    assert (len(added),) == brought
    assert [("r0", 7), ("r1", 7), ("r2", 7)] == runs


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("started_at", "yesterday"),
        ("started_at", 2**62),
        ("completed_at", 0.5),
        ("trigger_data", "{"),
        ("pause", "[]"),
        ("pause", 3),
        ("status", "gone"),
        ("attempt", "many"),
        ("id", "another"),
        ("workflow_id", "another"),
        ("hlc", "late"),
        ("error", b"\xff"),
    ],
)
async def test_a_column_that_something_else_changed(
    service: Reachable, file: Path, column: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A run with a damaged column is named by `get_run`, and skipped and logged by listings."""
    await damage(file, f"UPDATE runs SET {column} = ?", value)  # noqa: S608 - our own names
    await service.save_run(a_run(workflow_id="w", id="whole", started_at=NOON))

    with pytest.raises(UnreadableRunError, match="r0"):
        await service.get_run("w", "r0")
    caplog.set_level(logging.WARNING)
    listed, _ = await service.list_runs("w")

    assert ["whole"] == [run.id for run in listed]
    assert ["run_log_unreadable_run"] == [vars(record)["event"] for record in caplog.records]


async def test_text_that_is_no_unicode(service: Reachable, file: Path) -> None:
    """A text whose bytes something else damaged hides its own run and no other."""
    await damage(file, "UPDATE runs SET error = CAST(? AS TEXT)", b"\xff\xfe")
    await service.save_run(a_run(workflow_id="w", id="whole"))

    listed, _ = await service.list_runs("w")

    assert ["whole"] == [run.id for run in listed]


@pytest.mark.parametrize("value", ["", "{}", 7, b"\xff", "[1]"])
async def test_a_history_that_something_else_changed(service: Reachable, file: Path, value: object) -> None:
    """A run whose history is damaged can be read; the history and a merge into it are errors that name it."""
    await damage(file, "UPDATE runs SET history = ?", value)

    assert await service.get_run("w", "r0") is not None
    with pytest.raises(UnreadableRunError, match="r0"):
        await service.get_history("w", "r0")
    with pytest.raises(WriteRefusedError, match="no event can be merged"):
        await service.apply([an_event(workflow_id="w", id="r1"), an_event(workflow_id="w", id="r0")])

    assert {"total": 1, "successful": 1} == await service.get_stats("w")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("hlc", "9" * 30),
        ("hlc", float("inf")),
        ("attempt", 1e300),
        ("counted_micros", -1),
        ("counted_micros", 2**63 - 1),
        ("counted_hour", 2**62),
        ("status", b"success"),
        ("history", f'[1,{"9" * 5_000},"e","success",0,0]'),
    ],
)
async def test_the_neighbours_of_a_damaged_run(
    service: Reachable, file: Path, column: str, value: object
) -> None:
    """Where one run's stored row is damaged, only its events are rejected; the others are projected."""
    await damage(file, f"UPDATE runs SET {column} = ?", value)  # noqa: S608 - our own names
    events = [an_event(workflow_id="w", id=f"r{number}") for number in range(4)]

    outcomes = await Projector(service).apply(events)

    assert [Outcome.REJECTED, *[Outcome.APPLIED] * 3] == outcomes
    assert {"total": 4, "successful": 4} == await service.get_stats("w")


@pytest.mark.parametrize("value", ["soon", 2**63 - 1, 1e300, b"\xff"])
async def test_an_expiry_that_something_else_changed(service: Reachable, file: Path, value: object) -> None:
    """A run whose expiry is damaged takes its next event, which says anew when it expires."""
    await damage(file, "UPDATE runs SET expire_at = ?", value)

    assert [Outcome.APPLIED] == await service.apply([an_event(workflow_id="w", id="r0")])

    assert await service.get_run("w", "r0") is not None


@pytest.mark.parametrize(
    "change",
    ["last = 'many'", "last = NULL", "last = 9223372036854775807", "last = -1", "last = 1.5", "log = x'00'"],
)
async def test_a_sequence_that_something_else_changed(service: Reachable, file: Path, change: str) -> None:
    """A file that does not say how many changes it has seen is an error of ours for saves and watches."""
    await saved(file)
    with raw(file) as connection:
        connection.execute("DROP TABLE sequence")
        connection.execute("CREATE TABLE sequence (log, last INTEGER)")
        connection.execute("INSERT INTO sequence VALUES ('log', 7)")
        connection.execute(f"UPDATE sequence SET {change}")  # noqa: S608 - our own text

    with contextlib.ExitStack() as refused:
        if change.startswith("last"):
            refused.enter_context(pytest.raises(ConfigurationError, match="is damaged"))
        await service.apply([an_event(workflow_id="w", id="r1")])
    with contextlib.ExitStack() as refused:
        if not change.endswith(("807", "-1")):
            refused.enter_context(pytest.raises(StoreError, match="is damaged"))
        async with service.watch():
            pass


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE counters; CREATE VIEW counters AS SELECT 'w' AS workflow",
        "CREATE TRIGGER t AFTER UPDATE ON sequence BEGIN DELETE FROM runs; END",
        "DROP TABLE counters; CREATE VIRTUAL TABLE counters USING fts5(workflow)",
        "PRAGMA user_version = -1",
    ],
)
async def test_a_schema_that_could_do_anything(service: Reachable, file: Path, change: str) -> None:
    """A file in which something else than a table stands for ours is refused by readers and writers alike."""
    await saved(file)
    with raw(file) as connection:
        connection.executescript(change)

    for call in (service.get_stats("w"), service.apply([an_event()]), service.list_workflows()):
        with pytest.raises(ConfigurationError, match="not as run-log makes it"):
            await call


@pytest.mark.parametrize("value", ["many", b"\x00", 1.5, None])
async def test_a_watch_passes_what_has_no_number(service: Reachable, file: Path, value: object) -> None:
    """A watch goes on after runs whose number something else changed, and tells the others."""
    await saved(file, 3)
    with raw(file) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'changed INTEGER NOT NULL', 'changed')"
        )
    with raw(file) as connection:
        connection.execute("UPDATE runs SET changed = ? WHERE run = 'r1'", (value,))
        (log,) = connection.execute("SELECT log FROM sequence").fetchone()
    since = encode_parts((log, 0, "", ""), scope="watch", selection="[null]")

    async with service.watch(since_cursor=since) as changes:
        seen = [(await anext(changes)).run.id for _ in range(2)]
        await service.save_run(a_run(workflow_id="w", id="r9"))
        seen.append((await anext(changes)).run.id)

    assert ["r0", "r2", "r9"] == seen


async def test_a_cursor_from_before_a_copy(file: Path) -> None:
    """A watch's cursor of a change that the file has not seen is refused: it was restored from a copy."""
    await saved(file)
    service = SQLiteRunLogService(path=file)
    async with service.watch() as changes:
        await service.save_run(a_run(workflow_id="w", id="later"))
        cursor = (await anext(changes)).cursor
    await service.close()
    with raw(file) as connection:
        connection.execute("UPDATE sequence SET last = last - 1")

    with pytest.raises(InvalidCursorError, match="restored from a copy"):
        async with service.watch(since_cursor=cursor):
            pass
    await service.close()


@pytest.mark.parametrize(
    "change", ["success = 'many'", "workflow_id = 'another'", "as_of = 9223372036854775807"]
)
async def test_stats_that_something_else_changed(
    service: Reachable, file: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Damaged stats are an error when they are asked for, and skipped and logged by the list of workflows."""
    await damage(file, f"UPDATE workflows SET {change}")  # noqa: S608 - our own text
    await service.save_run(a_run(workflow_id="whole"))

    with pytest.raises(StoreError, match="'w'"):
        await service.get_stats("w")
    caplog.set_level(logging.WARNING)
    listed, _ = await service.list_workflows(limit=1)

    assert ["whole"] == [stats.workflow_id for stats in listed]
    assert ["run_log_unreadable_stats"] == [vars(record)["event"] for record in caplog.records]


@pytest.mark.parametrize("change", ["name = 'lost'", "count = 'many'"])
async def test_a_counter_that_something_else_changed(service: Reachable, file: Path, change: str) -> None:
    """A summary that a damaged counter is part of is an error that says so."""
    await service.save_run(a_run(workflow_id="w", status=RunStatus.SUCCESS))
    with raw(file) as connection:
        changed = connection.execute(f"UPDATE counters SET {change} WHERE name = 'micros'")  # noqa: S608

    assert changed.rowcount > 0
    with pytest.raises(StoreError, match="a counter is damaged"):
        await service.get_summary("w")


async def test_a_fault_of_the_library(service: Reachable) -> None:
    """A fault that is none of those above is an error of ours all the same, and the next call begins anew."""
    with pytest.raises(StoreError, match="no such table"):
        await service.when_writing(lambda connection: connection.execute("SELECT * FROM nowhere"))
    with pytest.raises(StoreError, match="binding"):
        await service.when_reading(lambda connection: connection.execute("SELECT ?"))
    await service.save_run(a_run(workflow_id="w"))

    assert {"total": 1, "successful": 1} == await service.get_stats("w")


async def test_saves_at_once_keep_their_order(service: Reachable) -> None:
    """Of saves of one run that are under way together, the one that began last is its newest state."""
    ahead = PROCESS_CLOCK.tick() + 3_600_000_000
    await service.apply([an_event(workflow_id="w", id="r", hlc=ahead)])

    await asyncio.gather(
        *(service.save_run(a_run(workflow_id="w", id="r", result={"n": n})) for n in range(20))
    )

    run = await service.get_run("w", "r")
    assert run is not None
    assert {"n": 19} == run.result


async def test_each_transaction_has_its_number(service: Reachable) -> None:
    """Every run has the number of the transaction that changed it last; one that changes none takes none."""
    batch = [an_event(workflow_id="w", id=name, hlc=5) for name in ("a", "b", "c")]
    await service.apply(batch)
    await service.apply(batch)
    await service.apply([an_event(workflow_id="w", id="b", hlc=6)])
    await service.apply([an_event(workflow_id="w", id="c", hlc=4)])

    def numbers(connection: sqlite3.Connection) -> list[Any]:
        return connection.execute("SELECT run, changed FROM runs ORDER BY changed").fetchall()

    assert [("a", 1), ("b", 2), ("c", 3)] == await service.when_reading(numbers)


async def test_many_transactions_of_one_call(service: Reachable) -> None:
    """What does not fit into one transaction is applied in several, in order, and every run is kept."""
    events = [an_event(workflow_id=f"w{n % 2}", id=f"r{n % 1_200}", hlc=n) for n in range(1_400)]

    outcomes = await service.apply([*events, *events[:5]])

    assert [Outcome.APPLIED] * 1_400 + [Outcome.DUPLICATE] * 5 == outcomes
    listed, _ = await service.list_workflows()
    assert [600, 600] == [stats.total for stats in listed]
    assert 600 == len([run async for run in service.iter_runs("w0")])


async def test_no_threads_left(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started any more, as at the interpreter's end, calls are made all the same."""
    connection = Connection(str(file), busy_seconds=1)

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    found = await connection.run(partial(_answer, number=42))
    monkeypatch.undo()
    await connection.close()

    assert 42 == found


def _answer(connection: sqlite3.Connection, *, number: int) -> int:
    (found,) = connection.execute("SELECT ?", (number,)).fetchone()
    return int(found)


async def test_what_has_expired_is_deleted(tmp_path: Path) -> None:
    """A run that expired more than a day ago is deleted by a later write, with labels, and stays counted."""
    path, time = tmp_path / "runs", [NOON]
    service = SQLiteRunLogService(path=path, retention_days=30, now=lambda: time[0])
    labels = {"team": "a", "stage": "x"}
    old = [an_event(workflow_id="w", id=f"old-{n}", occurred_at=NOON, labels=labels) for n in range(150)]
    await service.apply(old)
    kept: list[int] = []
    for days in (30, 31, 32, 33):
        time[0] = NOON + timedelta(days=days)
        await service.apply([an_event(workflow_id="w", id=f"new-{days}", occurred_at=time[0])])
        kept.append(await asyncio.to_thread(_count, path, "old-%"))
        assert 2 * kept[-1] == await asyncio.to_thread(_count_labels, path)
    stats = await service.get_stats("w")
    await service.close()

    assert [150, 50, 0, 0] == kept
    assert {"total": 154, "successful": 154} == stats


async def test_labels_are_those_of_the_newest_state(tmp_path: Path) -> None:
    """What is kept to find a run by its labels is what its newest state has, and nothing else."""
    path = tmp_path / "runs"
    service = SQLiteRunLogService(path=path)
    states: list[dict[str, str]] = [{"team": "a", "stage": "x"}, {"team": "b"}, {}]
    kept: list[int] = []
    for hlc, labels in enumerate(states):
        await service.apply([an_event(workflow_id="w", id="r", labels=labels, hlc=hlc)])
        kept.append(await asyncio.to_thread(_count_labels, path))
    await service.close()

    assert [2, 1, 0] == kept


async def test_hours_and_days_that_are_over_are_deleted(tmp_path: Path) -> None:
    """The hours and days that no summary shows any more are deleted by a later write of their workflow."""
    path, time = tmp_path / "runs", [NOON]
    service = SQLiteRunLogService(path=path, now=lambda: time[0])
    for day in range(0, 400, 10):
        time[0] = NOON + timedelta(days=day)
        await service.apply([an_event(workflow_id="w", id=f"r{day}", started_at=time[0])])
    await service.close()

    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT scope, count(DISTINCT slot) FROM counters GROUP BY scope ORDER BY scope"
        ).fetchall()
    assert [("all", 1), ("day", 10), ("hour", 1)] == found


def _count_labels(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM labels").fetchone()
    return int(count)


def _count(path: Path, runs: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM runs WHERE run LIKE ?", (runs,)).fetchone()
    return int(count)


async def test_a_watch_goes_on_after_a_restart(file: Path) -> None:
    """A cursor of a watch is good in another process, and of no other file."""
    first = SQLiteRunLogService(path=file)
    async with first.watch() as watch, asyncio.timeout(PATIENCE):
        await first.apply([an_event(workflow_id="w", id=f"r{number}") for number in range(5)])
        cursor = [await anext(watch) for _ in range(2)][-1].cursor
    await first.close()
    again, other = SQLiteRunLogService(path=file), SQLiteRunLogService(path=file.with_name("other"))

    async with again.watch(since_cursor=cursor) as watch, asyncio.timeout(PATIENCE):
        assert ["r2", "r3", "r4"] == [(await anext(watch)).run.id for _ in range(3)]
    with pytest.raises(InvalidCursorError, match="of another file than RUN_LOG_SQLITE_PATH names"):
        async with other.watch(since_cursor=cursor):
            pass
    await again.close()
    await other.close()
