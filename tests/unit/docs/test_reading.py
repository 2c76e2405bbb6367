from __future__ import annotations

import inspect
import json
import re
from datetime import timedelta
from typing import Any

from run_log.core import PauseRequest, RunStatus, utc_now
from run_log.core.history import MAX_HISTORY
from run_log.stores import RunLog, get_run_log_service, reset_run_log_service
from run_log.stores.failures import MAX_FAILURES
from run_log.stores.firestore.client import PATIENCE_SECONDS, RPC_TIMEOUT_SECONDS
from run_log.stores.firestore.watch.changes import MARGIN, Bounds
from run_log.stores.inbox import BY_DEFAULT
from run_log.stores.listings import MAX_PASSED_OVER, RunFilters
from run_log.stores.sqlite._service import BUSY_TIMEOUT
from run_log.stores.stored.fields import SHARDS
from run_log.testing import a_run

from .repository import blocks, one_line, read, run_example

READING = read("docs/reading.md")
TEXT = one_line(READING)


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
    asked = PauseRequest(
        assignee="bob@example.com",
        choices=("pay", "wait"),
        form={"required": ["amount"]},
        default_choice="wait",
    )
    await log.save_run(a_run(workflow_id="expenses", id="desk", status=RunStatus.PAUSED, pause=asked))
    names: dict[str, Any] = {}

    for block in blocks(READING, "python"):
        await run_example(block, names)

    assert ["failed"] == [run.id for run in names["failed"]]
    assert ["success", "failed"] == [run.id for run in names["ended"]]
    assert (1, 0) == (names["failures"], names["of_acme"])
    assert ("failed", "failed") == (names["update"].run.id, names["update"].run.status)
    assert {"books", "machine"} == {one.run.id for one in names["waiting"]}
    states = [await log.get_run("expenses", run_id) for run_id in ("books", "machine")]
    assert [RunStatus.RUNNING, RunStatus.FAILED] == [run.status for run in states if run]
    assert ("pay", {"amount": 4200}) == (names["answered"].choice, names["answered"].values)
    assert ["runs", "next_page_token"] == [*names["page"]]
    assert names["page"] == json.loads(names["text"])
    assert BY_DEFAULT in READING
    reset_run_log_service()


def test_the_methods_take_what_the_table_says() -> None:
    """Each row of the table is a method with those arguments."""
    rows = re.findall(r"^\| `(\w+)\((.*?)\)` \|", READING, re.MULTILINE)

    assert len(rows) == 13
    for name, arguments in rows:
        parameters = set(inspect.signature(getattr(RunLog, name)).parameters)
        given = {argument.strip().removesuffix("=") for argument in arguments.split(",")} - {"...", ""}
        assert given <= parameters | set(RunFilters.__annotations__), name


def test_numbers_are_true() -> None:
    """The numbers that the text names are those of the code."""
    bounds = Bounds()

    assert f"the newest {MAX_HISTORY} states" in TEXT
    assert SHARDS == 14
    assert "spread over fourteen shards" in TEXT
    assert f"the newest {MAX_FAILURES} failures" in TEXT
    assert f"more than {MAX_PASSED_OVER:,} runs" in TEXT
    assert f"the newest {bounds.changes:,} changes (or {bounds.bytes >> 20} MiB)" in TEXT
    assert f"every {bounds.listen_seconds / 60:g} minutes" in TEXT
    assert f"after {bounds.silent_seconds:g} seconds of silence" in TEXT
    assert f"in the {MARGIN.seconds} seconds before" in TEXT
    assert f"retried for {PATIENCE_SECONDS:g} s" in TEXT
    assert f"after at most {PATIENCE_SECONDS + RPC_TIMEOUT_SECONDS:g} s" in TEXT
    assert f"longer than {RPC_TIMEOUT_SECONDS:g} s is given up" in TEXT
    assert f"waits {BUSY_TIMEOUT.seconds} s for a SQLite file" in TEXT
