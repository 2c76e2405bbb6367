"""What tests of rebuilds share: a live projection, its archive, processes, and a comparison."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from run_log.core import RunEvent, RunStatus, Settings, encode_event
from run_log.stores import FirestoreRunLogService
from run_log.stores.audit import compare
from run_log.testing import an_event

LIVE: Final = "autopilot_runs"
ANEW: Final = "runs_2"


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
    try:
        return [
            f"{found.workflow_id}: {[*found.differences[:3], *found.counts[:3], *found.problems]}"
            async for found in compare(one.audit(), other.audit())
            if found.differs
        ]
    finally:
        await asyncio.gather(one.close(), other.close())


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


@contextlib.asynccontextmanager
async def rebuilding(folder: Path, *options: str, **environment: str) -> AsyncGenerator[Process]:
    """Run ``run-log rebuild`` in *folder* as a process of its own, which does not outlive the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from run_log.console import main; main()",
        "rebuild",
        "-o",
        "json",
        *options,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ended(process: Process, *, within: float) -> Rebuilding:
    """Wait for a rebuild to end by itself and return what it left behind."""
    async with asyncio.timeout(within):
        out, err = await process.communicate()
    record = json.loads(out) if out else {}
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
