"""The trace: rebuilt from its archive by a process that is killed halfway, and by another one."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.emulator.rebuild_kit import (
    ANEW,
    LIVE,
    archived,
    noted,
    raw_documents,
    rebuilding,
    rebuilt,
    service,
)
from tests.emulator.tcp_proxy import TcpProxy

from run_log.core import RunEvent, RunStatus
from run_log.testing import FirestoreEmulator, an_event

from .trace_file import read_trace, states

pytestmark = [
    pytest.mark.emulator,
    pytest.mark.usefixtures("emulator_environment"),
    pytest.mark.timeout(600),
]

FILES = 8
PER_APPLY = 1_000
ALLOWED_BYTES = 490
"""For each run, about half of what a document of the trace has."""

PATIENCE = 300.0


async def until_held(line: TcpProxy, folder: Path) -> None:
    """Wait until a rebuild over *line* is held up, and has noted how far it is."""
    async with asyncio.timeout(PATIENCE):
        while not (line.is_holding and noted(folder, "file:")):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.05)


async def project(events: Sequence[RunEvent]) -> None:
    """Make the live projection."""
    live = service(LIVE)
    for start in range(0, len(events), PER_APPLY):
        await live.apply(events[start : start + PER_APPLY])
    await live.close()


# All documents of the trace, written twice and compared one by one.
async def test_the_trace_is_rebuilt(firestore_emulator: FirestoreEmulator, tmp_path: Path) -> None:
    """A trace, rebuilt from an archive and killed halfway, equals the live one in all documents."""
    runs = read_trace()
    events = [
        an_event(run, occurred_at=run.started_at if run.status is RunStatus.RUNNING else run.completed_at)
        for run in states(runs)
    ]
    size = -(-len(events) // FILES)
    for number in range(FILES):
        part = events[number * size : (number + 1) * size]
        archived(tmp_path / "archive", part, name=f"events-{number}.jsonl")
    options = ("--from", "archive:archive", "--into", ANEW)

    projecting = asyncio.create_task(project(events))
    with TcpProxy(firestore_emulator.host) as line:
        line.allow(ALLOWED_BYTES * len(runs))
        async with rebuilding(tmp_path, *options, FIRESTORE_EMULATOR_HOST=line.host) as process:
            await until_held(line, tmp_path)
            process.kill()
            await process.communicate()
    is_done = bool(noted(tmp_path, "end"))
    done = await rebuilt(tmp_path, *options, within=PATIENCE)
    await projecting

    assert (-signal.SIGKILL, False) == (process.returncode, is_done)
    assert (0, len(runs), 0) == (done.code, done.record["runs"], done.record["rejects"]), done.err
    assert 0 < done.record["folded_now"] < len(events)
    live, anew = await raw_documents(LIVE), await raw_documents(ANEW)
    assert len(runs) + len({run.workflow_id for run in runs}) == len(live)
    assert live == anew
