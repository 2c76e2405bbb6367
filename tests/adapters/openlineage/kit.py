"""Events of OpenLineage, and an app over a run log in memory that takes them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from tests.unit.producer.transports import SOON

from run_log.adapters.openlineage import create_app
from run_log.producer import RunEventEmitter
from run_log.producer._store_transport import StoreTransport
from run_log.producer._transport import Transport
from run_log.stores import InMemoryRunLogService

EVENTS = Path(__file__).parent / "events"
NOW = datetime(2026, 3, 4, tzinfo=UTC)
PRODUCER = "https://example.com/tests"
URL = "/api/v1/lineage"


def an_event(kind: str | None = "START", at: str = "2026-03-01T10:00:00Z", **fields: Any) -> dict[str, Any]:
    """Return an event of run ``r`` of the job ``j`` in the namespace ``n``.

    *fields* are facets of the run, besides ``run_id``, ``namespace``, ``name`` and ``job_facets``.
    """
    job = {"namespace": fields.pop("namespace", "n"), "name": fields.pop("name", "j")}
    job_facets = fields.pop("job_facets", None)
    run = {"runId": fields.pop("run_id", "r")}
    return {
        **({} if kind is None else {"eventType": kind}),
        "eventTime": at,
        "run": {**run, **({"facets": fields} if fields else {})},
        "job": {**job, **({"facets": job_facets} if job_facets else {})},
        "producer": PRODUCER,
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
    }


def tags(**values: str) -> dict[str, Any]:
    """Return a facet with these tags."""
    return {"tags": [{"key": key, "value": value, "source": "USER"} for key, value in values.items()]}


def parent(run_id: str = "p", namespace: str = "n", name: str = "dag") -> dict[str, Any]:
    """Return the facet that names the parent."""
    return {"run": {"runId": run_id}, "job": {"namespace": namespace, "name": name}}


def lines(name: str) -> list[dict[str, Any]]:
    """Return the events in a file of *EVENTS*."""
    return [json.loads(line) for line in (EVENTS / name).read_text(encoding="utf-8").splitlines()]


@contextmanager
def emitter_to(transport: Transport, **options: Any) -> Generator[RunEventEmitter]:
    """Yield an emitter that delivers at once, and retries soon."""
    emitter = RunEventEmitter(transport, policy=SOON, **options)
    try:
        yield emitter
    finally:
        emitter.close(0)


@asynccontextmanager
async def receiver(
    log: InMemoryRunLogService | None = None, transport: Transport | None = None, **arguments: Any
) -> AsyncGenerator[httpx2.AsyncClient]:
    """Yield a client on this machine of an app that records into *log*."""
    log = InMemoryRunLogService() if log is None else log
    with emitter_to(StoreTransport(lambda: log) if transport is None else transport) as emitter:
        app = create_app(log, emitter=emitter, now=lambda: NOW, **arguments)
        async with client_of(app) as client:
            yield client


@asynccontextmanager
async def client_of(app: Any, address: str = "127.0.0.1") -> AsyncGenerator[httpx2.AsyncClient]:
    """Yield a client at *address* that calls the app."""
    asgi = httpx2.ASGITransport(app=app, client=(address, 1_234), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=asgi, base_url="http://localhost") as client:
        yield client


async def post_all(client: httpx2.AsyncClient, *events: dict[str, Any]) -> None:
    """Send *events*, each of which has to be taken."""
    for event in events:
        answer = await client.post(URL, json=event)
        assert 200 == answer.status_code, answer.text
