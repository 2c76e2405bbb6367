"""What is live of the dashboard: many open streams while events arrive, and a row in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from playwright.async_api import expect
from tests.browser.chromium import BrowserNotFoundError, started_chromium
from tests.ports import unused_port

from run_log.core import RunEvent, RunStatus, utc_now
from run_log.stores import SQLiteRunLogService
from run_log.testing import FirestoreEmulator, a_run

from .report import Options, Report, Row, number, percentile

STREAMS: Final = 50
EVENTS_A_SECOND: Final = 200
PER_APPLY: Final = 10
"""As many as an emitter delivers at once at that rate."""

SECONDS: Final = 20
QUICK_SECONDS: Final = 4
CHANGES: Final = 40
"""How many changes one browser sees."""

_ID: Final = re.compile(rb'data: \{"id":"run/live/(\d+)"')
_WATCHING: Final = """() => {
    window.seen = {};
    new MutationObserver((changes) => {
        for (const change of changes) for (const node of change.addedNodes)
            if (node.id?.startsWith("run/live/")) window.seen[node.id] = Date.now();
    }).observe(document.querySelector("tbody"), { childList: true });
}"""


def measure(options: Options, emulator: FirestoreEmulator) -> Report:
    """Serve a file of SQLite in a process of its own, and write to it here."""
    del emulator  # nothing of Google's is asked
    return asyncio.run(_measure(QUICK_SECONDS if options.quick else SECONDS))


async def _measure(seconds: int) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.sqlite3"
        log = SQLiteRunLogService(path=path)
        await log.save_run(a_run(id="first"))
        async with _served(path) as (server, address):
            idle = _memory(server.pid)
            streams = await _streams(log, server.pid, address, seconds)
            row = await _in_browser(log, address)
        await log.close()
    rows = [
        Row(
            what=f"event to row, {STREAMS} streams, {EVENTS_A_SECOND} events/s: p50, ms",
            figures=[streams["p50"]],
        ),
        Row(what="the same: p95, ms", figures=[streams["p95"]]),
        Row(what="the same: rows received of those sent", figures=[streams["received"]]),
        Row(what="the server meanwhile: CPU, % of a core", figures=[streams["cpu"]]),
        Row(what="the server: memory, idle and then, MB", figures=[f"{idle:.0f}, {streams['memory']}"]),
        Row(what="event to row in one browser: p50, ms", figures=[row["p50"]]),
        Row(what="the same: p95, ms", figures=[row["p95"]]),
    ]
    return Report(
        title="the dashboard, live: from the call that stores an event to its row",
        columns=["measured"],
        rows=rows,
        notes=[
            f"SQLite; run-log dashboard in a process of its own for {seconds} s, all else in another",
            f"{PER_APPLY} events are stored at a time; each stream is told of all; {CHANGES} in the browser",
        ],
    )


@contextlib.asynccontextmanager
async def _served(path: Path) -> AsyncGenerator[tuple[Process, str]]:
    port = unused_port()
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "from run_log.console import main; main()", "dashboard", "--port", str(port)),
        env={**os.environ, "RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(path)},
        stdout=DEVNULL,
        stderr=PIPE,
    )
    try:
        assert server.stderr is not None
        while b"http://" not in (line := await server.stderr.readline()):
            if not line:
                raise RuntimeError("the dashboard did not start")
        reading = asyncio.create_task(server.stderr.read())
        yield server, f"http://127.0.0.1:{port}"
        reading.cancel()
    finally:
        server.kill()
        await server.wait()


async def _streams(log: SQLiteRunLogService, pid: int, address: str, seconds: int) -> dict[str, str]:
    sent: dict[int, float] = {}
    delays: list[float] = []
    clients = [asyncio.create_task(_client(address, sent, delays)) for _ in range(STREAMS)]
    await asyncio.sleep(1)
    cpu, begun = _cpu(pid), time.monotonic()
    for batch in range(seconds * EVENTS_A_SECOND // PER_APPLY):
        await asyncio.sleep(max(0, begun + batch * PER_APPLY / EVENTS_A_SECOND - time.monotonic()))
        numbers = range(batch * PER_APPLY, (batch + 1) * PER_APPLY)
        now = time.monotonic()
        sent |= dict.fromkeys(numbers, now)
        await log.apply([_event(str(each)) for each in numbers])
    used, taken, memory = _cpu(pid) - cpu, time.monotonic() - begun, _memory(pid)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            while len(delays) < len(sent) * STREAMS:  # noqa: ASYNC110 - clients tell nobody
                await asyncio.sleep(0.1)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    return {
        "p50": number(1_000 * percentile(delays, 50)),
        "p95": number(1_000 * percentile(delays, 95)),
        "received": f"{len(delays):,} of {len(sent) * STREAMS:,}",
        "cpu": number(100 * used / taken),
        "memory": number(memory),
    }


async def _client(address: str, sent: dict[int, float], delays: list[float]) -> None:
    """Read a stream as a browser does, and note how old each row is when it comes."""
    where = urlsplit(address)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=2**22)
    writer.write(f"GET /live HTTP/1.1\r\nHost: {where.netloc}\r\nAccept: text/event-stream\r\n\r\n".encode())
    try:
        while line := await reader.readline():
            if found := _ID.match(line):
                delays.append(time.monotonic() - sent[int(found[1])])
    finally:
        writer.close()


async def _in_browser(log: SQLiteRunLogService, address: str) -> dict[str, str]:
    try:
        async with started_chromium() as browser:
            page = await browser.new_page()
            await page.goto(address)
            await expect(page.locator("#connection")).to_have_text("live")
            await page.evaluate(_WATCHING)
            sent: dict[str, float] = {}
            for each in range(CHANGES):
                # At no fixed distance from when the server looks.
                await asyncio.sleep(0.15 + 0.013 * (each % 10))
                name = f"b{each}"
                sent[f"run/live/{name}"] = time.time()
                await log.apply([_event(name)])
            await expect(page.locator('[id^="run/live/b"]')).to_have_count(CHANGES)
            seen: dict[str, float] = await page.evaluate("window.seen")
    except BrowserNotFoundError:
        return {"p50": "no browser", "p95": "no browser"}
    delays = [at - 1_000 * sent[name] for name, at in seen.items()]
    return {"p50": number(percentile(delays, 50)), "p95": number(percentile(delays, 95))}


def _event(name: str) -> RunEvent:
    run = a_run(
        workflow_id="live",
        id=name,
        status=RunStatus.RUNNING,
        started_at=utc_now(),
        labels={"team": "billing", "region": "eu"},
    )
    return RunEvent(run=run)


def _cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    """Return the megabytes that a process holds."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1_000 if found else 0.0
