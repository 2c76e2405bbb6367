"""A page of the dashboard: the server's time and its bytes, beside the query of the library that it shows."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Request
from starlette.types import ASGIApp, Message
from tests.browser.chromium import BrowserNotFoundError, started_chromium
from tests.browser.site import Site

from run_log.core import RunEvent, RunStatus, utc_now
from run_log.dashboard import create_app
from run_log.stores import FirestoreRunLogService, RunLogService, SQLiteRunLogService
from run_log.testing import FirestoreEmulator, a_run

from .report import Options, Report, Row, Sample, medians, number

LIMIT: Final = 50
CALLS: Final = 30
WARM_UP: Final = 3
CALLS_OF_EMULATOR: Final = 2
"""The emulator looks through all documents for a query over all workflows: each takes seconds."""

WORKFLOWS: Final = 20
PER_APPLY: Final = 5_000

SMALL: Final = 1_000
LARGE: Final = 100_000
LARGE_IN_FIRESTORE: Final = 3_000
"""How many the emulator looks through in time for a query over all workflows. With ``--full`` it has as many
as SQLite, and only pages without such a query are asked for: others get 503 after 10 seconds."""

OF_ONE: Final = "workflow-7"
RUN: Final = "/workflows/workflow-7/runs/run-000007"
PATHS: Final = {
    "runs": "/",
    "runs, failed": "/?status=failed",
    "runs of a workflow": "/?workflow=workflow-7",
    "a run": RUN,
    "a workflow": "/workflows/workflow-7",
    "the inbox": "/inbox",
    "operations": "/operations",
    "API: runs": "/api/v1/workflows/-/runs",
}
WITHIN_ONE: Final = ("runs of a workflow", "a workflow")
"""Pages without a query over all workflows. That of a run looks for the runs that it started."""


def measure(options: Options, emulator: FirestoreEmulator) -> Report:
    """Ask for each page, in SQLite and in Firestore, with few runs and with many."""
    del emulator  # the environment names it
    large = 2 * SMALL if options.quick else LARGE
    in_firestore = large if options.full or options.quick else LARGE_IN_FIRESTORE
    with tempfile.TemporaryDirectory() as folder:
        stores: dict[str, Callable[[], RunLogService]] = {
            f"SQLite, {size:,}": partial(SQLiteRunLogService, path=Path(folder) / f"{size}.sqlite3")
            for size in (SMALL, large)
        }
        project = f"page-{uuid.uuid4().hex[:8]}"
        stores[f"Firestore, {in_firestore:,}"] = partial(FirestoreRunLogService, project=project)
        sizes = dict(zip(stores, (SMALL, large, in_firestore), strict=True))
        rows: list[Row] = []
        requests: dict[str, str] = {}
        for name, opened in stores.items():
            rows += asyncio.run(_rows(name, opened(), sizes[name], requests, options.repetitions))
    return Report(
        title=f"pages of the dashboard, {LIMIT} runs on each list",
        columns=["ms", "CPU: ms", "x list_runs(limit=50)", "kB", "requests"],
        rows=rows,
        notes=[
            f"in the app, without a server; median of {CALLS} calls, of Firestore {CALLS_OF_EMULATOR}",
            f"{WORKFLOWS} workflows; list_runs is of all of them, or of the page's, without payloads",
            "kB are not compressed",
            "requests: what a browser asks for that has nothing kept, the page itself among them",
        ],
    )


async def _rows(
    name: str, log: RunLogService, size: int, requests: dict[str, str], repetitions: int
) -> list[Row]:
    await _fill(log, size)
    app = create_app(log)
    if not requests:  # they are the same whatever is behind the pages
        requests |= await _requests(app)
    calls = CALLS
    if isinstance(log, FirestoreRunLogService):
        calls, repetitions = CALLS_OF_EMULATOR, 1
    rows: list[Row] = []
    for what, path in PATHS.items():
        if size == LARGE and isinstance(log, FirestoreRunLogService) and what not in WITHIN_ONE:
            continue
        middle = medians([await _sample(app, log, path, calls) for _ in range(repetitions)])
        figures = [number(middle[each]) for each in ("wall", "cpu", "ratio", "kB")]
        rows.append(Row(what=f"{name}: {what}", figures=[*figures, requests.get(what, "-")]))
    await log.close()
    return rows


async def _sample(app: ASGIApp, log: RunLogService, path: str, calls: int) -> Sample:
    taken: dict[str, list[float]] = {"page": [], "query": [], "cpu": []}
    size = 0

    async def page() -> None:
        nonlocal size
        size = await asked(app, path)

    async def query() -> None:
        await log.list_runs(OF_ONE if OF_ONE in path else None, limit=LIMIT, payloads=False)

    warm_up = min(WARM_UP, calls // 2)
    for turn in range(warm_up + calls):
        for what, call in (("page", page), ("query", query)):
            begun, cpu = time.perf_counter(), time.process_time()
            await call()
            if turn >= warm_up:
                taken[what].append(1_000 * (time.perf_counter() - begun))
                if what == "page":
                    taken["cpu"].append(1_000 * (time.process_time() - cpu))
    middle = {what: statistics.median(values) for what, values in taken.items()}
    return {
        "wall": middle["page"],
        "cpu": middle["cpu"],
        "ratio": middle["page"] / middle["query"],
        "kB": size / 1_000,
    }


async def asked(app: ASGIApp, path: str) -> int:
    """Ask *app* for *path*, and return how many bytes it answers with.

    Raises:
        RuntimeError: It does not answer with what is there.
    """
    plain, _, query = path.partition("?")
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": plain,
        "raw_path": plain.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"127.0.0.1:8484")],
        "client": ("127.0.0.1", 4_711),
        "server": ("127.0.0.1", 8_484),
    }
    answered: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        answered.append(message)

    await app(scope, receive, send)
    if answered[0]["status"] != 200:
        raise RuntimeError(f"{path} is answered with {answered[0]['status']}")
    return sum(len(message.get("body", b"")) for message in answered)


async def _requests(app: ASGIApp) -> dict[str, str]:
    try:
        async with started_chromium() as browser, Site(app) as site:
            counted: dict[str, str] = {}
            for what, path in PATHS.items():
                asked_for: list[str] = []
                context = await browser.new_context()
                page = await context.new_page()
                page.on("request", partial(_note, asked_for))
                await page.goto(site.root + path, wait_until="load")
                # A stream is one that stays open.
                live = sum("/live" in url for url in asked_for)
                counted[what] = f"{len(asked_for) - live} + {live} stream" if live else str(len(asked_for))
                await context.close()
            return counted
    except BrowserNotFoundError:
        return {}


def _note(asked_for: list[str], request: Request) -> None:
    asked_for.append(request.url)


async def _fill(log: RunLogService, size: int) -> None:
    for start in range(0, size, PER_APPLY):
        await log.apply(list(_events(range(start, min(start + PER_APPLY, size)), size)))


def _events(numbers: range, size: int) -> Iterator[RunEvent]:
    now = utc_now()
    for each in numbers:
        status = RunStatus.FAILED if each % 10 == 0 else RunStatus.SUCCESS
        if each % max(size // 20, 1) == 1:
            status = RunStatus.PAUSED
        run = a_run(
            workflow_id=f"workflow-{each % WORKFLOWS}",
            id=f"run-{each:06}",
            status=status,
            started_at=now - timedelta(minutes=each % 50_000, microseconds=each),
            trigger_data={"program": "frequency", "arguments": ["-c", "20", "-pop", "AFR"]},
            duration_ms=50.0 + each % 1_000,
            labels={"team": "billing", "region": ("eu", "us")[each % 2]},
        )
        yield RunEvent(run=run)
