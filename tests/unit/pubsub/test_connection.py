from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors

from run_log.core import (
    ConfigurationError,
    Settings,
    TransportError,
    TransportRefusedError,
    TransportUnavailableError,
    encode_event,
)
from run_log.producer import FlushReport, RunEventEmitter
from run_log.producer._emitter import pubsub_transport
from run_log.pubsub import PubSubConnection, provision
from run_log.pubsub.connection import VENDOR_ERRORS
from run_log.testing import a_run, an_event

_TOPIC = "projects/p/topics/t"


PASSING: tuple[Callable[[str], Exception], ...] = (
    google_errors.ServiceUnavailable,
    google_errors.DeadlineExceeded,
    google_errors.InternalServerError,
    google_errors.ResourceExhausted,
    google_errors.Aborted,
    google_errors.Cancelled,
    auth_errors.TransportError,
    grpc.RpcError,
)


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> str:
    """Point Pub/Sub at a port that nobody listens at."""
    host = "127.0.0.1:1"
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    return host


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point Pub/Sub at Google Cloud."""
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)


def test_names(emulator: str) -> None:
    """A connection says where it leads, and makes full names of ids."""
    connection = PubSubConnection("p")

    assert str(connection) == f"Pub/Sub (emulator at {emulator}, project 'p')"
    assert connection.topic_path("t") == _TOPIC
    assert connection.subscription_path("s") == "projects/p/subscriptions/s"


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("project", [None, ""])
def test_a_project_is_needed(project: str | None) -> None:
    """Without a project the error says which variable to set."""
    with pytest.raises(ConfigurationError, match="set GOOGLE_CLOUD_PROJECT"):
        PubSubConnection(project)


@pytest.mark.usefixtures("cloud")
@pytest.mark.parametrize("where", [".", "missing.json", "broken.json"])
def test_credentials_are_needed(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that are a folder, missing or broken are an error that says what to do."""
    (tmp_path / "broken.json").write_text("{")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / where))

    with pytest.raises(ConfigurationError, match="gcloud auth application-default login"):
        PubSubConnection("p")


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize(
    ("kind", "ours", "told"),
    [
        *((kind, TransportUnavailableError, "is it up and reachable") for kind in PASSING),
        (google_errors.NotFound, TransportRefusedError, f"{_TOPIC} is not there; run `run-log provision`"),
        (google_errors.PermissionDenied, TransportRefusedError, f"denies access to {_TOPIC}; grant its role"),
        (google_errors.Unauthenticated, TransportRefusedError, f"denies access to {_TOPIC}; grant its role"),
        (google_errors.InvalidArgument, TransportRefusedError, f"refuses the call for {_TOPIC}"),
        (auth_errors.RefreshError, TransportRefusedError, f"refuses the call for {_TOPIC}"),
    ],
)
def test_vendor_errors_become_ours(
    kind: Callable[[str], Exception], ours: type[TransportError], told: str
) -> None:
    """Every error of Google's is one of ours that says whether to try again, what to do, and the cause."""
    error = kind("what Google says")

    translated = PubSubConnection("p").error(error, _TOPIC)

    assert isinstance(error, VENDOR_ERRORS)
    assert type(translated) is ours
    assert told in str(translated)
    assert "what Google says" in str(translated)


def test_provisioning_at_a_dead_port(emulator: str) -> None:
    """Where nobody listens, provisioning ends with an error that says where it looked."""
    with pytest.raises(TransportUnavailableError, match=rf"emulator at {emulator}.*is it up and reachable"):
        provision(PubSubConnection("p"), Settings(project="p"))


def test_publishing_at_a_dead_port(emulator: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody listens, emitting and closing are bounded, and the log says where it looked."""
    emitter = RunEventEmitter.from_env()

    emitter.emit(a_run())
    report = emitter.close(1)
    again = emitter.close(3_600)

    assert report == again == FlushReport(delivered=0, pending=1, dropped=0)
    (record,) = [
        vars(record) for record in caplog.records if vars(record).get("event") == "run_log_publish_failed"
    ]
    assert f"emulator at {emulator}" in record["error"]


@pytest.mark.usefixtures("emulator")
def test_a_transport_that_never_published_closes() -> None:
    """Closing an unused transport is fine, and makes no connection."""
    transport = pubsub_transport(Settings(project="p"))

    transport.close()

    with pytest.raises(TransportUnavailableError, match="is it up and reachable"):
        transport.publish([encode_event(an_event())])
    transport.close()


@pytest.mark.usefixtures("cloud")
async def test_clients_for_google_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an emulator every client leads to Google's Pub/Sub, with the credentials' project."""
    key = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    (tmp_path / "user.json").write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "user.json"))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "their-own")
    connection = PubSubConnection(None)

    hosts: set[str] = set()
    for client in (connection.publisher(), connection.subscriber()):
        hosts.add(client.transport.host)
        client.transport.close()
    for client in (connection.async_publisher(), connection.async_subscriber()):
        hosts.add(client.transport.host)
        await client.transport.close()

    assert hosts == {"pubsub.googleapis.com:443"}
    assert str(connection) == "Pub/Sub (Google Cloud, project 'their-own')"
