"""How a subscription is set up, who may publish to a topic, and how far behind a subscription is.

Every function raises `TransportUnavailableError` where Google does not answer, and `TransportRefusedError`
where what it is about is not there, or may not be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from google.auth import exceptions as auth_errors
from google.auth.transport.requests import AuthorizedSession
from requests import RequestException

from run_log.core import TransportRefusedError, TransportUnavailableError

from .connection import PubSubConnection

# How the name of the account ends that Pub/Sub itself acts as
# (https://cloud.google.com/pubsub/docs/access-control#service-agent).
_SERVICE_AGENT: Final = "@gcp-sa-pubsub.iam.gserviceaccount.com"

_MONITORING: Final = "https://monitoring.googleapis.com"
# https://cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-pubsub
_AGE_METRIC: Final = "pubsub.googleapis.com/subscription/oldest_unacked_message_age"

_TIMEOUT_SECONDS: Final = 20.0
_METRIC_WINDOW: Final = timedelta(minutes=10)  # Pub/Sub's metrics come a few minutes late


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionState:
    """How a subscription is set up."""

    topic: str
    """The full name of its topic; ``_deleted-topic_`` where that is gone."""
    expires_after: timedelta | None
    """Without use; None is never."""
    filter: str
    """What it leaves out; empty is nothing."""
    dead_letter_topic: str | None
    """The full name of where Pub/Sub itself gives messages up to; None is nowhere."""
    max_delivery_attempts: int
    """After how many deliveries; 0 is never."""
    push_endpoint: str | None
    """Where it pushes to; None is pulled."""
    lease: timedelta
    """How long a delivery is leased."""
    has_retry_policy: bool
    """Whether what is given back, or whose lease has ended, is held back before it is delivered again."""


def inspect_subscription(connection: PubSubConnection, name: str) -> SubscriptionState:
    """Return how the subscription with that full name is set up."""
    with connection.subscriber() as client, connection.translated(name):
        found = client.get_subscription(subscription=name, retry=None, timeout=_TIMEOUT_SECONDS)
    policy = found.dead_letter_policy
    return SubscriptionState(
        topic=found.topic,
        expires_after=found.expiration_policy.ttl or None,
        filter=found.filter,
        dead_letter_topic=policy.dead_letter_topic or None,
        max_delivery_attempts=policy.max_delivery_attempts,
        push_endpoint=found.push_config.push_endpoint or None,
        lease=timedelta(seconds=found.ack_deadline_seconds),
        has_retry_policy="retry_policy" in found,
    )


def service_agent_may_publish(connection: PubSubConnection, topic: str) -> bool:
    """Return whether Pub/Sub itself may give messages up to the topic with that full name."""
    with connection.publisher() as client, connection.translated(topic):
        policy = client.get_iam_policy(request={"resource": topic}, retry=None, timeout=_TIMEOUT_SECONDS)
    # By any of the roles that may publish. One that is bound to the project is not seen from here.
    return any(
        member.endswith(_SERVICE_AGENT)
        for binding in policy.bindings
        if binding.role in {"roles/pubsub.publisher", "roles/pubsub.editor", "roles/pubsub.admin"}
        for member in binding.members
    )


def oldest_unacknowledged(
    connection: PubSubConnection,
    subscription: str,
    *,
    now: datetime,
    session: Any = None,
) -> timedelta | None:
    """Return how old the oldest message is that a subscription still holds, as Cloud Monitoring has it.

    Requests are made with *session*; None is one with the connection's credentials.

    Returns:
        The age of some minutes ago; None where Cloud Monitoring has none, of a new subscription say.
    """
    # By REST: the client library of Cloud Monitoring would be one more dependency, for one number.
    if session is None:
        vendor: Any = AuthorizedSession  # not annotated
        session = vendor(connection.credentials)
    try:
        answer = session.get(
            f"{_MONITORING}/v3/projects/{connection.project}/timeSeries",
            params={
                "filter": f'metric.type="{_AGE_METRIC}" AND resource.labels.subscription_id="{subscription}"',
                "interval.startTime": _text(now - _METRIC_WINDOW),
                "interval.endTime": _text(now),
            },
            timeout=_TIMEOUT_SECONDS,
        )
    except (RequestException, auth_errors.GoogleAuthError) as error:
        raise TransportUnavailableError(f"Cloud Monitoring does not answer ({error})") from error
    if answer.status_code >= 500:  # noqa: PLR2004 - HTTP's
        raise TransportUnavailableError(f"Cloud Monitoring does not answer (HTTP {answer.status_code})")
    if answer.status_code != 200:  # noqa: PLR2004 - HTTP's
        raise TransportRefusedError(
            f"Cloud Monitoring refuses to tell; grant roles/monitoring.viewer (HTTP {answer.status_code})"
        )
    series = cast("dict[str, Any]", answer.json()).get("timeSeries", [])
    # Points come newest first.
    points = [one["points"][0]["value"] for one in series if one.get("points")]
    ages = [float(value.get("int64Value", value.get("doubleValue", 0))) for value in points]
    return timedelta(seconds=max(ages)) if ages else None


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
