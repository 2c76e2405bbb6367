from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import CodeType, FunctionType
from typing import Any

from run_log.core import PauseRequest, RunStatus, utc_now
from run_log.core.law import MAX_HISTORY
from run_log.stores import RunLog, get_run_log_service, reset_run_log_service
from run_log.stores.firestore.client import PATIENCE_SECONDS, RPC_TIMEOUT_SECONDS
from run_log.stores.firestore.watch.changes import MARGIN, Bounds
from run_log.stores.listings import RunFilters
from run_log.stores.sqlite._service import BUSY_TIMEOUT
from run_log.stores.stored.fields import ACTIVE_SHARDS, CHANGED_SHARDS
from run_log.testing import a_run

from .repository import one_line, read

READING = read("docs/reading.md")

_BLOCKS = re.findall(r"```python\n(.*?)```", READING, re.DOTALL)
_ROWS = re.findall(r"^\| `(\w+)\((.*?)\)` \|", READING, re.MULTILINE)


async def _run(block: str, names: dict[str, Any]) -> None:
    code: CodeType = compile(block, "reading.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    body: Callable[[], Awaitable[None] | None] = FunctionType(code, names)
    done = body()
    if inspect.isawaitable(done):
        await done


async def test_the_examples_run() -> None:
    """The examples run one after another as they stand, and find and change what the text says."""
    reset_run_log_service()
    log = get_run_log_service()
    for number, status in enumerate((RunStatus.FAILED, RunStatus.SUCCESS, RunStatus.RUNNING)):
        started_at = utc_now() - timedelta(hours=number)
        await log.save_run(
            a_run(workflow_id="invoices", id=status.value, status=status, started_at=started_at)
        )
    for run_id in ("books", "machine"):
        asked = PauseRequest(assignee="mei@example.com")
        await log.save_run(a_run(workflow_id="expenses", id=run_id, status=RunStatus.PAUSED, pause=asked))
    names: dict[str, Any] = {}

    for block in _BLOCKS:
        await _run(block, names)

    assert ["failed"] == [run.id for run in names["failed"]]
    assert ["success", "failed"] == [run.id for run in names["ended"]]
    assert ("failed", "failed") == (names["update"].run.id, names["update"].run.status)
    assert {"books", "machine"} == {one.run.id for one in names["waiting"]}
    states = [await log.get_run("expenses", run_id) for run_id in ("books", "machine")]
    assert [RunStatus.RUNNING, RunStatus.FAILED] == [run.status for run in states if run]
    reset_run_log_service()


def test_the_methods_take_what_the_table_says() -> None:
    """Each row of the table is a method with those arguments."""
    filters = set(RunFilters.__annotations__)

    assert len(_ROWS) == 8
    for name, arguments in _ROWS:
        parameters = set(inspect.signature(getattr(RunLog, name)).parameters)
        given = {argument.strip().removesuffix("=") for argument in arguments.split(",")} - {"..."}

        assert given <= parameters | filters, name


def test_numbers_are_true() -> None:
    """The numbers that the text names are those of the code."""
    assert MAX_HISTORY == 50
    assert "the newest 50 states" in one_line(READING)
    assert ACTIVE_SHARDS == CHANGED_SHARDS == 16
    assert "spread over sixteen shards" in one_line(READING)
    assert Bounds() == Bounds(changes=1_000, bytes=16 * 2**20, listen_seconds=1_800, silent_seconds=30)
    assert "the newest 1,000 changes (or 16 MiB)" in one_line(READING)
    assert "restarts every 30 minutes, and after 30 seconds of silence" in one_line(READING)
    assert timedelta(seconds=20) == MARGIN
    assert "in the 20 seconds before" in one_line(READING)
    assert (15, 10, timedelta(seconds=10)) == (PATIENCE_SECONDS, RPC_TIMEOUT_SECONDS, BUSY_TIMEOUT)
    assert "retried for 15 s" in one_line(READING)
    assert (
        "The last call may take 10 s more. So the query raises `StoreUnavailableError` after at most 25 s"
        in one_line(READING)
    )
    assert "A call waits 10 s for a SQLite file that other processes keep locked" in one_line(READING)
