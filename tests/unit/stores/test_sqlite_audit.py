"""What an audit of a file does that no other store has: its transaction, and files from before it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from run_log.core import InvalidArgumentError, StoreUnavailableError
from run_log.stores import SQLiteRunLogService
from run_log.stores.audit import compare, verify
from run_log.stores.sqlite._schema import MIGRATIONS, migrate
from run_log.testing import an_event

T = TypeVar("T")


async def stored(path: Path, *names: str) -> SQLiteRunLogService:
    """Return a service whose file has runs of these names."""
    service = SQLiteRunLogService(path=path)
    await service.apply([an_event(workflow_id="w", id=name) for name in names])
    return service


async def test_one_moment(tmp_path: Path) -> None:
    """A snapshot stays as it was opened, whatever is written before it is read."""
    service = await stored(tmp_path / "f", "a", "c")

    async with service.audit(page=1).snapshot("w") as snapshot:
        await service.apply([an_event(workflow_id="w", id="b")])
        counts = await snapshot.counts()
        runs = [run.id async for page in snapshot.documents(whole=False) for run in page]

    await service.close()
    assert (2, ["a", "c"]) == (counts.total, runs)


async def test_a_file_is_not_read_as_it_was(tmp_path: Path) -> None:
    """A moment that is over is refused: a file has none."""
    service = await stored(tmp_path / "f", "a")

    with pytest.raises(InvalidArgumentError, match="cannot be read as it was"):
        async with service.audit().snapshot("w", at=datetime.now(UTC)):
            pass

    await service.close()


@pytest.mark.process
async def test_a_fork_in_between(tmp_path: Path) -> None:
    """A fork ends the transaction: what is read afterwards is an error, not another moment."""
    service = await stored(tmp_path / "f", "a")

    async with service.audit().snapshot("w") as snapshot:
        child = os.fork()
        if not child:
            os._exit(0)
        await asyncio.to_thread(os.waitpid, child, 0)
        with pytest.raises(StoreUnavailableError, match="cut short"):
            await snapshot.counts()

    await service.close()


async def test_a_file_from_before_repairs(tmp_path: Path) -> None:
    """A file that an earlier version made is verified and repaired as any."""
    path = tmp_path / "f"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, "f", MIGRATIONS[:1])
    service = await stored(path, "a", "b")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE workflows SET failed = 5")

    (found,) = [one async for one in verify(service.audit(), repair=True)]
    (after,) = [one async for one in verify(service.audit())]

    await service.close()
    assert (2, True, False) == (len(found.counts), found.repaired, after.differs)


async def test_damaged_columns(tmp_path: Path) -> None:
    """Times, texts and counts that something else damaged are told, and end nothing."""
    path = tmp_path / "f"
    service = await stored(path, "a", "b", "c", "d")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE runs SET started_at = 'noon' WHERE run = 'a'")
        connection.execute("UPDATE runs SET expire_at = 1e300, pause = '{' WHERE run = 'b'")
        connection.execute("UPDATE runs SET history = 7 WHERE run = 'c'")

    (found,) = [one async for one in verify(service.audit(), repair=True)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE workflows SET failed = 'many'")
    (damaged,) = [one async for one in verify(service.audit(), repair=True)]

    await service.close()
    assert {"a", "b", "c"} == {one.run_id for one in found.run_findings}
    assert (4, False) == (found.runs, found.repaired)
    assert "damaged" in str(damaged.problem)


async def first(walk: AsyncIterator[T]) -> list[T]:
    """Return what a walk yields, which has to end soon."""
    found: list[T] = []
    async for one in walk:
        found.append(one)
        assert len(found) < 9, "the walk does not end"
    return found


@pytest.mark.parametrize("id_", ["x'77'", "x''", "CAST(x'ff' AS TEXT)", "CAST(x'78eda080' AS TEXT)", "''"])
@pytest.mark.parametrize("column", ["workflow", "run"])
async def test_ids_that_are_no_text(tmp_path: Path, column: str, id_: str) -> None:
    """An audit of a file in which an id is no text ends, names it, and looks at all the others."""
    path = tmp_path / "f"
    service = await stored(path, "a", "b", "c")
    await service.apply([an_event(workflow_id="z", id="a")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE runs SET {column} = {id_} WHERE run = 'b'")  # noqa: S608

    audit = service.audit(page=1)
    found = await first(verify(audit))
    compared = await first(compare(audit, audit))

    await service.close()
    whole = {one.workflow_id: one for one in found if not one.problem and one.workflow_id != ""}
    assert {"w", "z"} <= {*whole} <= {"w", "z", ""}
    assert not whole["z"].differs
    assert 3 <= len(compared) + (column == "run") <= 4
    named = [run.problem for one in found for run in one.run_findings] + [one.problem for one in found]
    assert any(named)


async def test_repairs_that_something_else_changed(tmp_path: Path) -> None:
    """A workflow whose repairs are damaged is named, and the next one is looked at."""
    path = tmp_path / "f"
    service = await stored(path, "a")
    await service.apply([an_event(workflow_id="z", id="a")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO repairs VALUES ('w', 'many')")

    found = [one async for one in verify(service.audit())]

    await service.close()
    assert [("w", True), ("z", False)] == [(one.workflow_id, one.differs) for one in found]
    assert "repairs are damaged" in str(found[0].problem)
