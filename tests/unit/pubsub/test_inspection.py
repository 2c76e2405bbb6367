from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import parse_qs, urlparse

import pytest
import requests

from run_log.core import TransportRefusedError, TransportUnavailableError
from run_log.pubsub import PubSubConnection
from run_log.pubsub.inspection import oldest_unacknowledged, service_agent_may_publish

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)

AGENT = "serviceAccount:service-1@gcp-sa-pubsub.iam.gserviceaccount.com"


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> PubSubConnection:
    """Return a connection that needs no credentials; nothing answers there."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    return PubSubConnection("project-1")


@contextlib.contextmanager
def monitoring(status: int, answer: object) -> Generator[tuple[str, list[str]]]:
    """Serve *answer* as Cloud Monitoring would; yield where, and what is asked there."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature is the library's
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _age(connection: PubSubConnection, endpoint: str) -> timedelta | None:
    with requests.Session() as session:
        session.trust_env = False
        return oldest_unacknowledged(connection, "sub", now=NOON, session=session, endpoint=endpoint)


AGES: list[tuple[dict[str, Any], timedelta | None]] = [
    ({}, None),
    ({"timeSeries": []}, None),
    ({"timeSeries": [{"points": []}]}, None),
    ({"timeSeries": [{"points": [{"value": {"int64Value": "90"}}]}]}, timedelta(seconds=90)),
    (
        {
            "timeSeries": [
                {"points": [{"value": {"int64Value": "5"}}, {"value": {"int64Value": "700"}}]},
                {"points": [{"value": {"doubleValue": 7.5}}]},
            ]
        },
        timedelta(seconds=7.5),
    ),
]


@pytest.mark.parametrize(("answer", "age"), AGES)
def test_the_age_of_what_waits(connection: PubSubConnection, answer: object, age: timedelta | None) -> None:
    """The age is the newest point of the oldest series, and none where Cloud Monitoring has none."""
    with monitoring(200, answer) as (endpoint, asked):
        found = _age(connection, endpoint)

    url = urlparse(asked[0])
    query = parse_qs(url.query)
    assert age == found
    assert "/v3/projects/project-1/timeSeries" == url.path
    assert 'resource.labels.subscription_id="sub"' in query["filter"][0]
    assert ["2026-03-04T11:50:00Z"] == query["interval.startTime"]
    assert ["2026-03-04T12:00:00Z"] == query["interval.endTime"]


def test_monitoring_that_refuses(connection: PubSubConnection) -> None:
    """Where we may not ask, the error says which role is needed."""
    with (
        monitoring(403, {}) as (endpoint, _),
        pytest.raises(TransportRefusedError, match="grant roles/monitoring"),
    ):
        _age(connection, endpoint)


def test_monitoring_that_fails(connection: PubSubConnection) -> None:
    """Where Cloud Monitoring fails or is away, that is an error that may pass."""
    with monitoring(503, {}) as (endpoint, _), pytest.raises(TransportUnavailableError, match="503"):
        _age(connection, endpoint)
    with pytest.raises(TransportUnavailableError, match="does not answer"):
        _age(connection, endpoint)


class _Policies(PubSubConnection):
    """A connection whose topics have a policy: the emulator has none."""

    def __init__(self, bindings: list[tuple[str, list[str]]]) -> None:
        super().__init__("project-1")
        self._bindings = bindings

    def publisher(self) -> Any:
        """Return what tells the policy."""
        return _Policy(self._bindings)


class _Policy:
    def __init__(self, bindings: list[tuple[str, list[str]]]) -> None:
        self.bindings = [SimpleNamespace(role=role, members=members) for role, members in bindings]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def get_iam_policy(self, **_: object) -> _Policy:
        return self


BINDINGS: list[tuple[list[tuple[str, list[str]]], bool]] = [
    ([], False),
    ([("roles/pubsub.publisher", ["serviceAccount:us@p.iam.gserviceaccount.com"])], False),
    ([("roles/pubsub.viewer", [AGENT])], False),
    ([("roles/pubsub.viewer", []), ("roles/pubsub.publisher", ["user:a@b.c", AGENT])], True),
]


@pytest.mark.usefixtures("connection")
@pytest.mark.parametrize(("bindings", "may"), BINDINGS)
def test_the_rights_of_the_service_agent(bindings: list[tuple[str, list[str]]], *, may: bool) -> None:
    """Pub/Sub's service agent may publish where a role that includes it is bound to it."""
    assert may is service_agent_may_publish(_Policies(bindings), "projects/project-1/topics/t")
