"""What an event of OpenLineage costs the receiver, beside a handler of FastAPI's that reads the body."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from tests.adapters.openlineage.kit import URL, lines

from run_log.adapters.openlineage import create_app
from run_log.core import Message
from run_log.producer import RunEventEmitter
from run_log.producer._store_transport import StoreTransport
from run_log.stores import InMemoryRunLogService, RunLogService, SQLiteRunLogService
from run_log.testing import FirestoreEmulator

from .report import Options, Report, Row, Sample, in_rounds, number, percentile

RUNS: Final = 500
AT_ONCE: Final = 16
EMPTY: Final = "an empty handler"
CASES: Final = (
    EMPTY,
    "an event, delivered to nothing",
    "an event, into SQLite",
    f"the same, {AT_ONCE} at a time",
)


class _Nothing:
    def publish(self, messages: Sequence[Message]) -> None:
        """Take *messages*."""

    def close(self) -> None:
        """Let go of nothing."""


def measure(options: Options, emulator: FirestoreEmulator) -> Report:
    """Post the events of many runs, one after the other, in this process and without a network."""
    del emulator  # nothing of Google's is asked
    bodies = _bodies(RUNS // 5 if options.quick else RUNS)
    middle = in_rounds(CASES, options.repetitions, lambda case: asyncio.run(_sample(case, bodies)))
    empty = middle[EMPTY]
    return Report(
        title="an event of OpenLineage, in microseconds",
        columns=["CPU", "CPU: x an empty handler", "until the answer: p50", "p99"],
        rows=[
            Row(
                what=case,
                figures=[
                    number(figures["cpu"]),
                    number(figures["cpu"] / empty["cpu"]),
                    number(figures["p50"]),
                    number(figures["p99"]),
                ],
            )
            for case, figures in middle.items()
        ],
        notes=[
            f"{len(bodies):,} events of {sum(map(len, bodies)) // len(bodies):,} bytes, three a run",
            f"called as ASGI apps, without a network; median of {options.repetitions} such",
            "CPU is of all threads of the process",
            "an empty handler is FastAPI's, reads the body and answers 200",
        ],
    )


def _bodies(runs: int) -> list[bytes]:
    events = lines("spark.jsonl")
    return [
        json.dumps({**event, "run": {**event["run"], "runId": f"run-{run:06}"}}).encode()
        for run in range(runs)
        for event in events
    ]


@asynccontextmanager
async def _app(case: str, folder: Path) -> AsyncGenerator[FastAPI]:
    if case == EMPTY:
        app = FastAPI(openapi_url=None)

        @app.post(URL)
        async def empty(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction] - the app has it
            await request.body()
            return Response()

        yield app
        return
    if "SQLite" in case or "same" in case:
        path = folder / "runs.sqlite3"
        read: RunLogService
        own, read = SQLiteRunLogService(path=path), SQLiteRunLogService(path=path)
        emitter = RunEventEmitter(StoreTransport(lambda: own, close_store=own.close))
    else:
        read = InMemoryRunLogService()
        emitter = RunEventEmitter(_Nothing())
    yield create_app(read, emitter=emitter, auth="none", now=lambda: datetime(2026, 3, 4, tzinfo=UTC))
    await asyncio.to_thread(emitter.close, 30)
    await read.close()


async def _sample(case: str, bodies: Sequence[bytes]) -> Sample:
    at_once = AT_ONCE if "at a time" in case else 1
    with tempfile.TemporaryDirectory() as folder:
        async with _app(case, Path(folder)) as app:
            await _post(app, bodies[0])
            seconds: list[float] = []
            # Of all threads: delivery is in one of its own.
            cpu = time.process_time()
            left = iter(bodies)

            async def work() -> None:
                for body in left:
                    begun = time.perf_counter()
                    await _post(app, body)
                    seconds.append(time.perf_counter() - begun)

            await asyncio.gather(*(work() for _ in range(at_once)))
            cpu = time.process_time() - cpu
    return {
        "cpu": 1e6 * cpu / len(bodies),
        "p50": 1e6 * percentile(seconds, 50),
        "p99": 1e6 * percentile(seconds, 99),
    }


async def _post(app: Callable[..., Any], body: bytes) -> None:
    scope = {
        "type": "http",
        "method": "POST",
        "path": URL,
        "raw_path": URL.encode(),
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        statuses.append(message.get("status", 200))

    await app(scope, receive, send)
    if set(statuses) != {200}:
        raise RuntimeError(f"an event is answered with {statuses}")
