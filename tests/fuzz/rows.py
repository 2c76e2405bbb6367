"""SQLite files that something else changed, read by all that reads one: values, or errors of ours."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn
from unittest import mock

from run_log.console.views.output import Listing, OutputFormat, own_json
from run_log.console.views.tables import stale_table
from run_log.console.work.sweep import sweep
from run_log.core import Outcome, PauseRequest, RunLogError, RunRef, RunStatus, TriggerType
from run_log.projector import Projector
from run_log.stores import SQLiteRunLogService
from run_log.stores.audit import CountName, RunDocument, compare, verify
from run_log.stores.audit._figures import Recount, checked_horizon
from run_log.stores.audit.port import run_record
from run_log.stores.listings import encode_parts
from run_log.stores.sqlite._connection import Connection
from run_log.stores.sqlite._queries import (
    DOCUMENT_COLUMNS,
    HEAD_COLUMNS,
    RUN_COLUMNS,
    WORKFLOW_COLUMNS,
    counter_from_row,
    fields_from_row,
    run_from_row,
    stats_from_row,
)
from run_log.stores.stored.reading import head_to_merge
from run_log.testing import a_run, an_event

from .pipes import FuzzFailedError

MAX_STEPS: Final = 200
"""Pages of a walk over some ten runs, and updates of a watch."""

MAX_CALLS: Final = 3_000
"""Of a file's connections, by all that is asked of it: beyond, something does not end."""

MAX_INSTRUCTIONS: Final = 200
"""Of SQLite's machine, in tens of thousands, for one call."""

NOON: Final = datetime(2026, 3, 4, 12, tzinfo=UTC)

Ask = Callable[[], Awaitable[object]]

_TABLES: Final = ("runs", "workflows", "counters", "sequence", "repairs", "labels")
_PALETTE: Final[tuple[Any, ...]] = (
    *(None, b"", b"\xff\xfe", b"a", b"7"),
    *("", "\x00", "a\x00b", "b", "a/b", "..", "x" * 70_000, "9" * 5_000, "e" * 128, "~" * 128),
    *("success", "running", "paused", "b0", "b-1", "b9999999", "micros"),
    *("{", "[]", "[" * 60_000, "null", '{"a": NaN}', '{"reason": ["x"], "deadline": 10e30}'),
    *('[1,1,"e","success",1e999,0]', f'[1,{10**30},"e","running",{10**30},0]', '[-5,-5,"","paused",0,1]'),
    '{"deadline": "0001-01-01T00:00:00+14:00"}',
    *(0, 1, -1, 2**31 - 1, 2**31, 2**53 + 1, 2**61, 2**62 - 1, 2**62, 2**63 - 1, -(2**63)),
    *(253_402_300_799_999_999, -62_135_596_800_000_000, 253_402_300_800_000_000),
    *(0.0, 1.5, -0.5, 1e18, 1e23, 1e300, float("inf"), float("-inf")),
)
_NO_UNICODE: Final = (b"\xed\xa0\x80", b"a\xff", b"\xc0\x80")
"""As text."""

_ENDLESS: Final = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
_SCHEMAS: Final = (
    *(f"DROP INDEX {name}" for name in ("runs_by_start", "inbox_by_start", "stale", "all_by_start")),
    *(f"DROP TABLE {name}" for name in ("counters", "repairs", "workflows", "sequence", "runs", "labels")),
    "ALTER TABLE runs DROP COLUMN result",
    "ALTER TABLE runs RENAME COLUMN hlc TO clock",
    "ALTER TABLE workflows DROP COLUMN paused",
    "ALTER TABLE workflows RENAME TO w; CREATE VIEW workflows AS SELECT * FROM w",
    (
        f"DROP TABLE counters; CREATE VIEW counters AS {_ENDLESS} "  # noqa: S608
        "SELECT 'a' AS workflow, 'day' AS scope, i AS slot, 'success' AS name, 1 AS count FROM n"
    ),
    "CREATE TRIGGER t BEFORE UPDATE ON runs BEGIN SELECT RAISE(ABORT, 'no'); END",
    (
        "CREATE TRIGGER t AFTER UPDATE ON sequence BEGIN "  # noqa: S608
        f"INSERT INTO counters SELECT 'a', 'x', i, 'n', 1 FROM ({_ENDLESS} SELECT i FROM n); END"
    ),
    "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END",
    "DROP TABLE counters; CREATE VIRTUAL TABLE counters USING fts5(workflow, scope, slot, name, count)",
    *(f"PRAGMA user_version = {version}" for version in (-1, 0, 1, 99)),
    "PRAGMA application_id = 0",
)


def run_files(numbers: Iterable[int], *, seed: int) -> Counter[str]:
    """Change one file for each of these *numbers*, read it by all that reads one, and return what came of it.

    Raises:
        FuzzFailedError: Something came of one that is neither a value nor an error of ours, or did not end.
    """
    counts = Counter[str]()
    # In memory where that is possible: every write is synchronised.
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        whole = asyncio.run(_whole_file(Path(folder)))
        files = (whole, _without_constraints(whole, Path(folder) / "loose"))
        for number in numbers:
            counts += _run_file(files, number, seed, Path(folder) / "changed")
    return counts


def _run_file(files: Sequence[bytes], number: int, seed: int, path: Path) -> Counter[str]:
    chance = random.Random(f"{seed}/{number}")
    for beside in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{beside}").unlink(missing_ok=True)
    path.write_bytes(chance.choice(files))
    make = chance.choice(_CHANGES)
    told = make(path, chance)
    where = f"file {number} of seed {seed} ({told})"
    try:
        with _in_bounds():
            found = asyncio.run(_everything_of(path))
    except Exception as error:
        raise FuzzFailedError(f"{where}: {error!r}") from error
    return Counter({f"{make.__name__.removeprefix('_')}: {what}": count for what, count in found.items()})


@contextlib.contextmanager
def _in_bounds() -> Generator[None]:
    """Have every connection work in this thread, which is quicker, and fail where something does not end."""
    calls = itertools.count()
    endless: list[sqlite3.Connection] = []
    connected: Callable[[Connection], sqlite3.Connection] = Connection._connection  # pyright: ignore[reportPrivateUsage]

    def without_thread(*_given: object) -> NoReturn:
        if next(calls) > MAX_CALLS:
            raise FuzzFailedError("something does not end")
        raise RuntimeError("no thread")

    def bounded(own: Connection) -> sqlite3.Connection:
        connection = connected(own)
        steps = itertools.count()

        def is_over() -> bool:
            if next(steps) < MAX_INSTRUCTIONS:
                return False
            endless.append(connection)
            return True

        connection.set_progress_handler(is_over, 10_000)
        return connection

    with (
        mock.patch.object(Connection, "_submit", without_thread),
        mock.patch.object(Connection, "_connection", bounded),
    ):
        yield
    if endless:
        raise FuzzFailedError("a query does not end")


async def _everything_of(path: Path) -> Counter[str]:
    service = SQLiteRunLogService(path=path, now=lambda: NOON)
    try:
        return await _everything(service)
    finally:
        await service.close()


async def _everything(service: SQLiteRunLogService) -> Counter[str]:
    """Ask and do all there is, and return how many answers were values, and how many errors of ours."""
    counts = Counter[str]()
    failures: list[Exception] = []
    for name, ask in _asked(service).items():
        try:
            await ask()
        except RunLogError as error:
            counts[type(error).__name__] += 1
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            error.add_note(name)
            failures.append(error)
        else:
            counts["value"] += 1
    if failures:
        told = "; ".join(f"{error.__notes__[-1]}: {error!r}" for error in failures)
        raise FuzzFailedError(told) from failures[0]
    return counts


def _asked(log: SQLiteRunLogService) -> Mapping[str, Ask]:
    day = timedelta(days=1)
    keys = [("a", f"r{number}") for number in range(len(RunStatus))]
    asked: dict[str, Ask] = {
        "list_workflows": partial(_pages, log.list_workflows, limit=1),
        "get_pending_runs": log.get_pending_runs,
        "of an assignee": partial(_pages, log.list_pending, assignee="mei", limit=1),
        "list_runs of all": partial(_pages, log.list_runs, None, limit=1),
        "list_runs of all, by status": partial(_pages, log.list_runs, None, limit=1, status="failed"),
        "list_runs by label": partial(_pages, log.list_runs, "a", limit=1, label=("team", "a")),
        "list_runs of all, by label": partial(_pages, log.list_runs, None, limit=1, label=("team", "a")),
        "list_runs by parent": partial(_pages, log.list_runs, None, limit=1, parent=("a", "p")),
        "count_runs of all": log.count_runs,
        "count_runs by labels": partial(log.count_runs, label={"team": "a", "stage": "b"}, status="failed"),
        "list_failures": log.list_failures,
        "get_notices": log.get_notices,
        "list_stale": partial(_pages, log.list_stale, timedelta(0), limit=1),
        "watch": partial(_watched, log),
        "verify": partial(_verified, log),
        "compare": partial(_compared, log),
        "sweep": partial(_swept, log, mark=False),
    }
    for overdue in (None, True, False):
        asked[f"list_pending {overdue}"] = partial(
            _pages, log.list_pending, overdue=overdue, limit=1, now=NOON
        )
    for workflow in ("a", "b"):
        listed = partial(_pages, log.list_runs, workflow, limit=2)
        each: dict[str, Ask] = {
            "get_stats": partial(log.get_stats, workflow),
            "get_as_of": partial(log.get_as_of, workflow),
            "get_latest_run": partial(log.get_latest_run, workflow),
            "list_runs": listed,
            "oldest": partial(listed, order="oldest", status=["success", "paused", "running"]),
            "of a trigger": partial(listed, trigger_type="manual", since=NOON - day, until=NOON + day),
            "count_runs": partial(log.count_runs, workflow, parent=("a", "p"), trigger_type="manual"),
            "inbox": partial(_pages, log.list_pending, workflow_id=workflow, limit=1),
            "watch one": partial(_watched, log, workflow),
        }
        for window in (None, timedelta(hours=3), 10 * day):
            each[f"get_summary {window}"] = partial(_summary, log, workflow, window)
        asked |= {f"{name} {workflow}": ask for name, ask in each.items()}
    for key in keys:
        asked[f"get_run {key}"] = partial(log.get_run, *key)
        asked[f"get_history {key}"] = partial(log.get_history, *key)
        asked[f"wait_for {key}"] = partial(log.wait_for, *key, an_event().version, timeout=0)
    asked["apply"] = partial(_applied, log)
    for key in keys:
        asked[f"mark_lost {key}"] = partial(log.mark_lost, *key, older_than=timedelta(0))
        asked[f"resume {key}"] = partial(log.resume, *key, answered_by="mei")
        asked[f"save {key}"] = partial(log.save_run, a_run(workflow_id=key[0], id=key[1]))
    asked |= {
        "expire": partial(log.expire, 30),
        "sweep, marking": partial(_swept, log, mark=True),
        "repair": partial(_verified, log, repair=True),
    }
    return asked


async def _pages(ask: Callable[..., Awaitable[tuple[Any, str | None]]], *values: Any, **how: Any) -> None:
    cursor = None
    for _ in range(MAX_STEPS):
        _, cursor = await ask(*values, **how, start_after=cursor)
        if cursor is None:
            return
    raise FuzzFailedError("a walk does not end")


async def _all(items: AsyncIterator[Any]) -> None:
    count = 0
    async for _ in items:
        count += 1
        if count == MAX_STEPS:
            raise FuzzFailedError("a walk does not end")


async def _verified(log: SQLiteRunLogService, *, repair: bool = False) -> None:
    await _all(verify(log.audit(page=2), repair=repair))


async def _compared(log: SQLiteRunLogService) -> None:
    await _all(compare(log.audit(page=2), log.audit(page=2)))


async def _watched(log: SQLiteRunLogService, workflow: str | None = None) -> None:
    """Take all changes there were since the beginning."""
    selection = f'["{workflow}"]' if workflow else "[null]"
    state, _ = await log._state()  # pyright: ignore[reportPrivateUsage]
    cursor = encode_parts((state, 0, "", ""), scope="watch", selection=selection)
    source: Any = log.updates(workflow, cursor, selection)

    class _Seen(Exception):  # noqa: N818
        pass

    async def seen(_seconds: float) -> None:
        raise _Seen

    source._sleep = seen
    await source.open()
    with contextlib.suppress(_Seen):
        for _ in range(MAX_STEPS):
            while source.take() is not None:
                pass
            await source.more()
        raise FuzzFailedError("a watch does not end")


async def _summary(log: SQLiteRunLogService, workflow: str, window: timedelta | None) -> None:
    found = await log.get_summary(workflow, window, now=NOON)
    for durations in (found.durations, *(bucket.durations for bucket in found.buckets)):
        str((durations.mean, durations.p50, durations.p99, found.success_rate))


async def _swept(log: SQLiteRunLogService, *, mark: bool) -> None:
    listing = Listing(OutputFormat.TABLE, "stale_runs", table=stale_table, record=own_json)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        await sweep(log, listing, older_than=timedelta(0), workflow_id=None, mark=mark, now=NOON)


async def _applied(log: SQLiteRunLogService) -> None:
    """Apply events of damaged and whole runs together: what is whole is projected."""
    events = [an_event(workflow_id=w, id=f"r{n}") for n in range(6) for w in ("a", "b")]
    outcomes = await Projector(log).apply(events)
    if any(outcome is not Outcome.APPLIED for outcome in outcomes[1::2]):
        raise FuzzFailedError(f"a run that is whole was not projected: {outcomes}")
    listed, _ = await log.list_runs("b")
    if {f"r{n}" for n in range(6)} - {run.id for run in listed}:
        raise FuzzFailedError(f"a run that is whole is not listed: {[run.id for run in listed]}")


async def _whole_file(folder: Path) -> bytes:
    service = SQLiteRunLogService(path=folder / "whole", now=lambda: NOON)
    statuses = [*RunStatus]
    for workflow in ("a", "b"):
        events = [
            an_event(
                workflow_id=workflow,
                id=f"r{number}",
                status=status,
                trigger_type=TriggerType.MANUAL,
                started_at=NOON - timedelta(hours=number),
                labels={"team": "a"},
                parent=RunRef("a", "p"),
                pause=PauseRequest(reason="?", assignee="mei", deadline=NOON + timedelta(hours=number)),
            )
            for number, status in enumerate(statuses)
        ]
        begun = [an_event(event.run, status=RunStatus.RUNNING, hlc=event.hlc - 1) for event in events]
        await service.apply(begun)
        await service.apply(events)
    await service.close()
    with closing(sqlite3.connect(folder / "whole")) as connection:
        connection.execute("INSERT INTO repairs VALUES ('a', 1)")
        connection.commit()
        connection.execute("PRAGMA journal_mode = DELETE")
    return (folder / "whole").read_bytes()


def _without_constraints(whole: bytes, path: Path) -> bytes:
    """Return the same file without constraints: nothing says that a column has a value, or of which type."""
    path.write_bytes(whole)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        for type_ in (" NOT NULL", " INTEGER", " TEXT", " REAL"):
            connection.execute(
                "UPDATE sqlite_master SET sql = replace(sql, ?, '') WHERE type = 'table'", (type_,)
            )
        connection.commit()
    return path.read_bytes()


def _cell(path: Path, chance: random.Random) -> str:
    with closing(sqlite3.connect(path)) as connection, connection:
        table = chance.choice((*_TABLES[:1] * 5, *_TABLES))
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        workflow = "of_workflow" if table == "labels" else "workflow"
        own = "" if table == "sequence" else f"WHERE {workflow} = 'a'"
        if own and chance.random() < 0.7:
            key = {"runs": "run", "counters": "slot", "labels": "of_run"}.get(table, workflow)
            nth = chance.randrange(len(RunStatus))
            nth_key = f"SELECT {key} FROM {table} {own} ORDER BY {key} LIMIT 1 OFFSET {nth}"  # noqa: S608
            own += f" AND {key} = ({nth_key})"
        told: list[str] = []
        for column in chance.sample(columns, chance.choice((1, 1, 1, 2))):
            mark, value = "?", chance.choice(_PALETTE)
            if chance.random() < 0.1:
                mark, value = "CAST(? AS TEXT)", chance.choice(_NO_UNICODE)
            statement = f"UPDATE OR IGNORE {table} SET {column} = {mark} {own}"  # noqa: S608
            told.append(f"{statement} [{value!r:.60}]")
            with contextlib.suppress(sqlite3.IntegrityError):  # a column that has to have a value
                connection.execute(statement, (value,))
        return "; ".join(told)


def _row(path: Path, chance: random.Random) -> str:
    """Copy a row, under another place, or take it away."""
    with closing(sqlite3.connect(path)) as connection, connection:
        table = chance.choice(("runs", "workflows", "counters"))
        if chance.random() < 0.2:
            connection.execute(f"DELETE FROM {table} WHERE workflow = 'a'")  # noqa: S608
            return f"{table} is empty"
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        row = list(connection.execute(f"SELECT * FROM {table} WHERE workflow = 'a' LIMIT 1").fetchone())  # noqa: S608
        for name in ("workflow", "run")[: chance.choice((1, 2))]:
            if name in columns:
                row[columns.index(name)] = chance.choice(_PALETTE)
        marks = ", ".join("?" * len(row))
        with contextlib.suppress(sqlite3.IntegrityError):
            connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)  # noqa: S608
        return f"{table} has a row more: {row[:2]!r:.100}"


def _schema(path: Path, chance: random.Random) -> str:
    change = chance.choice(_SCHEMAS)
    with closing(sqlite3.connect(path)) as connection, contextlib.suppress(sqlite3.Error):
        connection.executescript(change)
    return change


def _bytes(path: Path, chance: random.Random) -> str:
    """Damage the file itself."""
    data = bytearray(path.read_bytes())
    kind = chance.randrange(4)
    start = chance.randrange(len(data))
    if kind == 0:
        del data[chance.randrange(len(data)) :]
    elif kind == 1:
        page = start // 4096 * 4096
        data[page : page + 4096] = bytes(4096)
    elif kind == 2:
        page, other = start // 4096 * 4096, chance.randrange(len(data)) // 4096 * 4096
        data[page : page + 4096] = data[other : other + 4096]
    else:
        for _ in range(chance.randrange(1, 30)):
            data[min(start + chance.randrange(60), len(data) - 1)] = chance.randrange(256)
    path.write_bytes(data)
    return f"bytes at {start}, {kind}"


_CHANGES: Final = (_cell, _cell, _cell, _cell, _cell, _cell, _row, _schema, _bytes)


def run_rows(numbers: Iterable[int], *, seed: int) -> Counter[str]:
    """Read one row for each of these *numbers*, in which something is wrong, by all that reads rows.

    Raises:
        FuzzFailedError: Something came of one that is neither a value nor an error of ours.
    """
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_whole_file(Path(folder)))
        with closing(sqlite3.connect(Path(folder) / "whole")) as connection:
            rows = {
                table: connection.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 1").fetchone()  # noqa: S608
                for table, columns in _READ.items()
            }
    counts = Counter[str]()
    for number in numbers:
        chance = random.Random(f"{seed}/{number}")
        table = chance.choice(("runs", "runs", "runs", "workflows", "counters"))
        row = list(rows[table])
        for place in chance.sample(range(len(row)), chance.choice((1, 1, 2, 3))):
            row[place] = chance.choice((*_PALETTE, *_NO_UNICODE))
        for name, read in _readers(row)[table].items():
            try:
                read()
            except RunLogError as error:
                counts[f"{name}: {type(error).__name__}"] += 1
            except Exception as error:
                raise FuzzFailedError(
                    f"row {number} of seed {seed} ({name}): {error!r}, {row!r:.500}"
                ) from error
            else:
                counts[f"{name}: value"] += 1
    return counts


_READ: Final = {
    "runs": DOCUMENT_COLUMNS,
    "workflows": WORKFLOW_COLUMNS,
    "counters": ("scope", "slot", "name", "count"),
}


def _readers(row: Sequence[Any]) -> Mapping[str, Mapping[str, Callable[[], object]]]:
    """Return what reads a row, by its table."""
    fields = dict(zip(DOCUMENT_COLUMNS, row, strict=False))

    def head() -> object:
        return head_to_merge(
            fields_from_row(HEAD_COLUMNS, [fields[name] for name in HEAD_COLUMNS]), ("a", "r")
        )

    def recounted() -> object:
        document = RunDocument(id=str(row[1]), fields=fields_from_row(DOCUMENT_COLUMNS, row))
        recount = Recount(checked_horizon(NOON))
        recount.add(run_record("a", document))
        return recount.figures

    return {
        "runs": {
            "run": lambda: run_from_row([fields[name] for name in RUN_COLUMNS]),
            "head": head,
            "recount": recounted,
        },
        "workflows": {"stats": lambda: stats_from_row(row)},
        "counters": {"counter": lambda: CountName.of(counter_from_row(row)[0])},
    }
