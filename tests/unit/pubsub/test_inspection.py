from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Self

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


class _Monitoring:
    """Answers as Cloud Monitoring would.

    Args:
        status: Of the HTTP answer; None is none at all.
        answer: Its body.
    """

    def __init__(self, status: int | None, answer: object = None) -> None:
        self._answer = SimpleNamespace(status_code=status, json=lambda: answer)
        self.url = ""
        self.params: dict[str, str] = {}

    def get(self, url: str, *, params: dict[str, str], timeout: float) -> Any:
        """See `requests.Session.get`."""
        assert timeout > 0
        if self._answer.status_code is None:
            raise requests.ConnectionError
        self.url, self.params = url, params
        return self._answer


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
    monitoring = _Monitoring(200, answer)

    assert age == oldest_unacknowledged(connection, "sub", now=NOON, session=monitoring)

    assert "https://monitoring.googleapis.com/v3/projects/project-1/timeSeries" == monitoring.url
    assert 'resource.labels.subscription_id="sub"' in monitoring.params["filter"]
    assert "2026-03-04T11:50:00Z" == monitoring.params["interval.startTime"]
    assert "2026-03-04T12:00:00Z" == monitoring.params["interval.endTime"]


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (403, TransportRefusedError, "grant roles/monitoring"),
        (503, TransportUnavailableError, "503"),
        (None, TransportUnavailableError, "does not answer"),
    ],
)
def test_monitoring_that_does_not_tell(
    connection: PubSubConnection, status: int | None, error: type[Exception], told: str
) -> None:
    """Where we may not ask, the error says which role is needed; where it is away, that it may pass."""
    with pytest.raises(error, match=told):
        oldest_unacknowledged(connection, "sub", now=NOON, session=_Monitoring(status))


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
