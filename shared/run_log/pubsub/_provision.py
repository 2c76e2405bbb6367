"""The topics and subscriptions of a run log, and those beside them that hear everything again or keep it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from google.api_core import exceptions as google_errors

from run_log.core import Settings

from .connection import PubSubConnection

ACK_DEADLINE: Final = timedelta(seconds=20)
"""How long a pulled message is leased. What a killed puller held is delivered again after that. A puller that
needs longer extends the lease."""

REPLAY_LEASE: Final = timedelta(seconds=10)
"""How long a message of a replay is leased. As short as Pub/Sub allows: after a replay was killed, the next
one waits that long (https://cloud.google.com/pubsub/docs/lease-management)."""

# The lease of a subscription whose messages are written to a disk. Nobody extends it.
_KEEPER_LEASE: Final = timedelta(seconds=60)

MAX_DELIVERY_ATTEMPTS: Final = 50
"""Deliveries before Pub/Sub itself gives a message up. With fewer, an outage of minutes would dead-letter
the whole backlog."""

RETENTION: Final = timedelta(days=7)
"""How long the event topic keeps what is published, and subscriptions keep what is not acknowledged."""

# An empty policy means never. By default Pub/Sub deletes a subscription that nobody has used for 31 days, an
# idle platform's say (https://cloud.google.com/pubsub/docs/subscription-properties#expiration_period).
_NEVER_EXPIRES: Final[dict[str, Any]] = {"expiration_policy": {}}

# `retry=None`: an operator who waits for the vendor's own retries, of minutes, is told nothing.
_CALL: Final[dict[str, Any]] = {"retry": None, "timeout": 20.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioned:
    """One topic or subscription that is there now."""

    name: str
    """Its full name."""
    created: bool
    """Whether it was made just now; one that was there is left as it is."""


def provision(connection: PubSubConnection, settings: Settings) -> list[Provisioned]:
    """Make the topics and subscriptions that *settings* name, where they are missing.

    Repeats change nothing. The event topic retains what is published, so that a rebuild can hear it again.
    Dead letters get a subscription of the topic's own name: without one, Pub/Sub would keep none.

    Args:
        connection: Where to.
        settings: Names them.

    Raises:
        TransportUnavailableError: Pub/Sub does not answer.
        TransportRefusedError: It does not let us; the message says which resource.
    """
    letters = settings.dead_letter_topic
    # No ordering and no exactly-once delivery: both cost latency, and the merge law needs neither.
    # No retry policy: it would also hold back what a killed puller had in hand (docs/adr/0025), and the
    # worker backs off by itself.
    policy = {
        "dead_letter_topic": connection.topic_path(letters),
        "max_delivery_attempts": MAX_DELIVERY_ATTEMPTS,
    }
    return [
        _topic(connection, settings.topic, message_retention_duration=RETENTION),
        _topic(connection, letters),
        _subscription(
            connection, settings.topic, settings.subscription, dead_letter_policy=policy, **_NEVER_EXPIRES
        ),
        _subscription(connection, letters, letters, **_NEVER_EXPIRES),
    ]


def add_subscription(connection: PubSubConnection, topic: str, subscription: str) -> bool:
    """Make a subscription on *topic* that keeps what is not acknowledged for seven days, and never expires.

    Args:
        connection: Where to.
        topic: The topic's id.
        subscription: The subscription's id.

    Returns:
        Whether it was made; one that was there is left as it is.

    Raises:
        TransportUnavailableError: Pub/Sub does not answer.
        TransportRefusedError: The topic is not there, or access is denied.
    """
    made = _subscription(connection, topic, subscription, lease=_KEEPER_LEASE, **_NEVER_EXPIRES)
    return made.created


def begin_replay(connection: PubSubConnection, topic: str, subscription: str, since: datetime) -> None:
    """Have a subscription of *topic* deliver again all that was published since a moment and is retained.

    It is made where it is not there. Pub/Sub deletes it when nobody has used it for 31 days. *topic* and
    *subscription* are ids, *since* is aware; it raises what `add_subscription` does.
    """
    name = _subscription(connection, topic, subscription, lease=REPLAY_LEASE).name
    with connection.subscriber() as client, connection.translated(name):
        client.seek(request={"subscription": name, "time": since}, **_CALL)


def end_replay(connection: PubSubConnection, subscription: str) -> None:
    """Delete the subscription with that id, if it is there; raises what `add_subscription` does."""
    name = connection.subscription_path(subscription)
    with connection.subscriber() as client, connection.translated(name):
        try:
            client.delete_subscription(subscription=name, **_CALL)
        except google_errors.NotFound:
            return


def topic_retention(connection: PubSubConnection, topic: str) -> timedelta | None:
    """Return for how long *topic*, an id, keeps what is published, acknowledged or not; None: it does not.

    It raises what `add_subscription` does.
    """
    name = connection.topic_path(topic)
    with connection.publisher() as client, connection.translated(name):
        found: Any = client.get_topic(topic=name, **_CALL)
        retention: timedelta | None = found.message_retention_duration
    return retention or None


def _topic(connection: PubSubConnection, topic: str, **fields: Any) -> Provisioned:
    name = connection.topic_path(topic)
    with connection.publisher() as client, connection.translated(name):
        return _made(client.create_topic, {"name": name, **fields})


def _subscription(
    connection: PubSubConnection,
    topic: str,
    subscription: str,
    *,
    lease: timedelta = ACK_DEADLINE,
    **fields: Any,
) -> Provisioned:
    request: dict[str, Any] = {
        "name": connection.subscription_path(subscription),
        "topic": connection.topic_path(topic),
        "ack_deadline_seconds": int(lease.total_seconds()),
        "message_retention_duration": RETENTION,
        **fields,
    }
    # By the topic's name: what is not there when a subscription is made is its topic.
    with connection.subscriber() as client, connection.translated(request["topic"]):
        return _made(client.create_subscription, request)


def _made(create: Any, request: dict[str, Any]) -> Provisioned:
    try:
        create(request=request, **_CALL)
    except google_errors.AlreadyExists:
        return Provisioned(name=request["name"], created=False)
    return Provisioned(name=request["name"], created=True)
