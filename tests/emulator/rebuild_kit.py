"""What tests of rebuilds share: a live projection, its archive, processes, and a comparison."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import Process
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from tests.processes import started

from run_log.core import RunEvent, RunStatus, Settings, encode_event
from run_log.stores import FirestoreRunLogService
from run_log.stores.audit import compare
from run_log.stores.firestore import Connection, FirestoreRoot
from run_log.stores.firestore.client import fields_of
from run_log.stores.stored.fields import CHANGED_AT, CHANGED_SHARD, HISTORY, PROJECTION
from run_log.stores.stored.reading import transition_from_text
from run_log.stores.stored.writing import transition_text
from run_log.testing import an_event

LIVE: Final = "autopilot_runs"
ANEW: Final = "runs_2"

COMPARED_AT_A_TIME: Final = 8
RAW_PAGE: Final = 500


def service(root: str, **options: Any) -> FirestoreRunLogService:
    """Return the run log of a root collection of the environment's database."""
    return FirestoreRunLogService(project=Settings.from_env().project, root_collection=root, **options)


def lives(count: int, *, steps: Sequence[RunStatus] = (RunStatus.RUNNING,), text: str = "") -> list[RunEvent]:
    """Return the events of so many runs of three workflows, each run's in order, *text* at its end."""
    ends = (RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.PAUSED, RunStatus.SUCCESS)
    return [
        an_event(workflow_id=f"w/{number % 3}", id=f"r{number:05}", status=status, result={"text": said})
        for number in range(count)
        for status, said in (*((step, "") for step in steps), (ends[number % len(ends)], text))
    ]


def archived(folder: Path, events: Iterable[RunEvent], *, name: str = "events.jsonl") -> Path:
    """Write *events* into a file of the folder of an archive, and return the folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"".join(encode_event(event).data + b"\n" for event in events))
    return folder


async def differences(first: str, second: str) -> list[str]:
    """Return what differs between two root collections, document by document and count by count."""
    one, other = service(first), service(second)
    comparing = asyncio.Semaphore(COMPARED_AT_A_TIME)

    async def compared(workflow_id: str) -> list[str]:
        async with comparing:
            return [
                f"{found.workflow_id}: {[*found.differences[:3], *found.counts[:3], *found.problems]}"
                async for found in compare(one.audit(), other.audit(), workflow_id)
                if found.differs
            ]

    try:
        workflows = {name: None for log in (one, other) for name in await workflows_of(log)}
        return [line for lines in await asyncio.gather(*map(compared, workflows)) for line in lines]
    finally:
        await asyncio.gather(one.close(), other.close())


async def raw_documents(root: str) -> dict[str, Any]:
    """Return all documents of a root collection by path, without what depends on where and when they are.

    For many of them `differences` takes minutes.
    """
    connection = Connection(Settings.from_env().project, None)
    found: dict[str, Any] = {
        document.id: _counted(document.to_dict())
        async for document in connection.client().collection(root).stream()
    }
    whole = FirestoreRoot(connection, root, page=RAW_PAGE)
    after: str | None = ""
    while after is not None:
        page, after = await whole._documents(after, None)  # pyright: ignore[reportPrivateUsage]
        for path, document in page.items():
            fields = fields_of(document.fields)
            del fields[PROJECTION][CHANGED_AT]
            own, _, number = fields[PROJECTION][CHANGED_SHARD].rpartition("/")
            assert root == own
            fields[PROJECTION][CHANGED_SHARD] = number
            # A state that was committed before the next one came leaves its digest beside its transition.
            texts = {transition_text(transition_from_text(text)) for text in fields[PROJECTION][HISTORY]}
            fields[PROJECTION][HISTORY] = sorted(texts)
            found[path] = fields
    await connection.close()
    return found


def _counted(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what is counted, without what is counted as none: that depends on the batches."""
    counts = {
        name: _counted(cast("dict[str, Any]", value)) if isinstance(value, dict) else value
        for name, value in fields.items()
    }
    return {name: value for name, value in counts.items() if value not in (0, {})}


async def workflows_of(log: FirestoreRunLogService) -> list[str]:
    """Return all workflows of a run log that have runs."""
    found, cursor = await log.list_workflows(limit=1_000)
    assert cursor is None
    return [stats.workflow_id for stats in found]


async def total(root: str) -> int:
    """Return how many runs a root collection counts."""
    log = service(root)
    try:
        workflows, _ = await log.list_workflows(limit=1_000)
        return sum(stats.total for stats in workflows)
    finally:
        await log.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilding:
    """What ``run-log rebuild`` left behind."""

    code: int | None
    record: dict[str, Any]
    err: str


def rebuilding(folder: Path, *options: str, **environment: str) -> AbstractAsyncContextManager[Process]:
    """Run ``run-log rebuild`` in *folder* as a process of its own, which does not outlive the block."""
    return started("rebuild", "-o", "json", *options, folder=folder, environment=environment)


async def ended(process: Process, *, within: float) -> Rebuilding:
    """Wait for a rebuild to end by itself and return what it left behind."""
    async with asyncio.timeout(within):
        out, err = await process.communicate()
    record: dict[str, Any] = json.loads(out) if out else {}
    return Rebuilding(code=process.returncode, record=record, err=err.decode())


async def rebuilt(folder: Path, *options: str, within: float = 100, **environment: str) -> Rebuilding:
    """Run ``run-log rebuild`` in *folder* to its end."""
    async with rebuilding(folder, *options, **environment) as process:
        return await ended(process, within=within)


def noted(folder: Path, about: str) -> dict[str, Any]:
    """Return what the state in *folder* says about something, as far as it was written."""
    found: dict[str, Any] = {}
    for path in folder.glob("*.state"):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n") and str(json.loads(line).get("about", "")).startswith(about):
                found |= json.loads(line)
    return found
