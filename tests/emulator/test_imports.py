"""Imports with Firestore and Pub/Sub: documents of the predecessor, and both as the destination."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.imports.kit import csv_text
from tests.imports.test_importing import rows
from tests.processes import started
from tests.unit.docs.repository import blocks, read

from run_log.core import ConfigurationError, RunStatus, Settings
from run_log.projector.imports import root_runs
from run_log.projector.rebuild import FromRoot
from run_log.pubsub import PubSubConnection, provision
from run_log.stores import FirestoreRunLogService, RunLog, SQLiteRunLogService
from run_log.stores.firestore import Connection
from run_log.testing import a_run

from .rebuild_kit import ANEW, service
from .test_rebuild import run_rebuild

pytestmark = [pytest.mark.emulator, pytest.mark.process, pytest.mark.usefixtures("emulator_environment")]

OLD = "old_runs"
DOCUMENTS: list[dict[str, Any]] = [
    {"status": "success", "started_at": "2026-03-04T12:00:00+01:00", "completed_at": "2026-03-04T11:00:05Z"},
    {"status": "FAILED", "started_at": "2026-03-04T12:00:00", "error": "no line 7", "trigger_type": "cron"},
    {"status": "paused", "started_at": "2026-03-04T12:00:00+00:00", "trigger_data": {"a": {"b": [1]}}},
    {"status": "odd", "started_at": "2026-03-04T12:00:00+00:00"},
]


async def write_old() -> None:
    """Write documents as the service that run-log began from did, and one of run-log itself."""
    connection = Connection(Settings.from_env().project, None)
    workflow = connection.client().document(f"{OLD}/invoices")
    for number, fields in enumerate(DOCUMENTS):
        document: dict[str, Any] = {
            "workflow_id": "invoices",
            "id": f"r{number}",
            "result": {},
            "duration_ms": 5.0,
            **fields,
        }
        await workflow.collection("runs").document(f"r{number}").set(document)
    await workflow.set({"total": 99, "successful": 98})
    await connection.close()
    log = service(OLD)
    await log.save_run(a_run(workflow_id="ours"))
    await log.close()


async def run_import(*arguments: str, environment: Mapping[str, str]) -> tuple[int | None, dict[str, Any]]:
    """Run an import as a process of its own, and return its exit code and its record."""
    async with started("import", *arguments, "-o", "json", environment=environment) as process:
        out, err = await process.communicate()
    assert out, err.decode()
    return process.returncode, json.loads(out)


async def states(log: RunLog) -> dict[str, RunStatus]:
    """Return the status of each run of the predecessor, and check the counts against them."""
    runs, _ = await log.list_runs("invoices")
    stats = await log.get_stats("invoices")
    succeeded = sum(run.status is RunStatus.SUCCESS for run in runs)
    assert {"total": len(runs), "successful": succeeded} == stats
    return {run.id: run.status for run in runs}


async def test_documents_of_the_predecessor_into_a_file_and_a_root(tmp_path: Path) -> None:
    """The page's command copies such documents into SQLite or another root; again, it changes nothing."""
    await write_old()
    (line,) = blocks(read("docs/import.md"), "sh")[1].splitlines()
    _, _, *arguments = line.split()
    path = str(tmp_path / "runs.db")
    destinations: list[dict[str, str]] = [
        {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": path},
        {"RUN_LOG_BACKEND": "firestore", "RUN_LOG_ROOT_COLLECTION": ANEW},
    ]
    file, root = SQLiteRunLogService(path=path), service(ANEW)
    try:
        for environment, log in zip(destinations, (file, root), strict=True):
            code, first = await run_import(*arguments, environment=environment)
            _, again = await run_import(*arguments, environment=environment)

            assert 1 == code
            assert [(3, 0), (0, 3)] == [(each["imported"], each["unchanged"]) for each in (first, again)]
            reasons = {each["reason"]: each["first"][0] for each in first["left_out"]}
            assert "invoices/runs/r3" in reasons["it is no run"]
            assert any("run-log itself wrote it" in reason for reason in reasons)
            assert {"runs with times without an offset, taken as UTC": 1} == first["without"]
            assert {
                "r0": RunStatus.SUCCESS,
                "r1": RunStatus.FAILED,
                "r2": RunStatus.PAUSED,
            } == await states(log)
        assert await file.get_run("invoices", "r1") == await root.get_run("invoices", "r1")
        # What a rebuild copies is the same event as what was imported.
        await run_rebuild(FromRoot(name=OLD), tmp_path)
        assert 1 == len(await root.get_history("invoices", "r1"))
    finally:
        await asyncio.gather(file.close(), root.close())


async def test_the_live_root_is_no_source() -> None:
    """A root collection is not imported into itself: the error says what copies it."""
    settings = Settings(backend="firestore", root_collection=OLD)
    with pytest.raises(ConfigurationError, match=f"run-log rebuild --from root:{OLD} --into NEW"):
        await anext(root_runs(settings, OLD, Counter()))


async def test_an_import_into_the_topic_is_projected(tmp_path: Path) -> None:
    """With the back end pubsub, an import is published, and a projector stores it; repeats count once."""
    settings = Settings.from_env()
    provision(PubSubConnection.from_settings(settings), settings)
    file = tmp_path / "runs.csv"
    await asyncio.to_thread(file.write_text, csv_text(rows(60)), encoding="utf-8")
    environment = {"RUN_LOG_BACKEND": "pubsub"}
    for _ in range(2):
        code, record = await run_import("csv", str(file), environment=environment)
        assert (0, 60) == (code, record["published"])
    async with started("projector", "pull", "--until-idle", "1", environment=environment) as process:
        _, err = await process.communicate()
    assert 0 == process.returncode, err.decode()
    log = FirestoreRunLogService.from_settings(settings)
    try:
        workflows, _ = await log.list_workflows(limit=10)
        assert 60 == sum(stats.total for stats in workflows)
        assert 1 == len(await log.get_history("w0", "r0"))
    finally:
        await log.close()
