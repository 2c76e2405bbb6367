"""Subscriptions beside the projector's own: to hear everything again, or to keep everything."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

from google.api_core import exceptions as google_errors

from ._connection import VENDOR_ERRORS, PubSubConnection
from ._provision import RETENTION

REPLAY_LEASE: Final = timedelta(seconds=10)
"""How long a message of a replay is leased. As short as Pub/Sub allows: after a replay was killed, the next
one waits that long (https://cloud.google.com/pubsub/docs/lease-management)."""

_KEEPER_LEASE: Final = timedelta(seconds=60)
"""The lease of a subscription whose messages are written to a disk. Nobody extends it."""

_TIMEOUT_SECONDS: Final = 20.0


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
    return _made(connection, topic, subscription, lease=_KEEPER_LEASE, expiration_policy={})


def begin_replay(connection: PubSubConnection, topic: str, subscription: str, since: datetime) -> None:
    """Have a subscription of *topic* deliver again all that was published since a moment and is retained.

    It is made where it is not there. Pub/Sub deletes it when nobody has used it for 31 days.

    Args:
        connection: Where to.
        topic: The topic's id.
        subscription: The subscription's id.
        since: The moment, aware.

    Raises:
        TransportUnavailableError: See `add_subscription`, as the other error.
        TransportRefusedError: See `add_subscription`.
    """
    _made(connection, topic, subscription, lease=REPLAY_LEASE)
    name = connection.subscription_path(subscription)
    with connection.subscriber() as client, _calls(connection, name):
        client.seek(request={"subscription": name, "time": since}, retry=None, timeout=_TIMEOUT_SECONDS)


def end_replay(connection: PubSubConnection, subscription: str) -> None:
    """Delete a subscription. One that is not there is no error.

    Raises:
        TransportUnavailableError: Pub/Sub does not answer.
        TransportRefusedError: Access is denied.
    """
    name = connection.subscription_path(subscription)
    with connection.subscriber() as client, _calls(connection, name):
        try:
            client.delete_subscription(subscription=name, retry=None, timeout=_TIMEOUT_SECONDS)
        except google_errors.NotFound:
            return


def topic_retention(connection: PubSubConnection, topic: str) -> timedelta | None:
    """Return for how long *topic* keeps what is published, acknowledged or not; None where it does not.

    Args:
        connection: Where it is.
        topic: The topic's id.

    Raises:
        TransportUnavailableError: See `add_subscription`, as the other error.
        TransportRefusedError: See `add_subscription`.
    """
    name = connection.topic_path(topic)
    with connection.publisher() as client, _calls(connection, name):
        found: Any = client.get_topic(topic=name, retry=None, timeout=_TIMEOUT_SECONDS)
        retention: timedelta | None = found.message_retention_duration
    return retention or None


def _made(
    connection: PubSubConnection, topic: str, subscription: str, *, lease: timedelta, **more: Any
) -> bool:
    request: dict[str, Any] = {
        "name": connection.subscription_path(subscription),
        "topic": connection.topic_path(topic),
        "ack_deadline_seconds": int(lease.total_seconds()),
        "message_retention_duration": RETENTION,
        **more,
    }
    with connection.subscriber() as client, _calls(connection, request["topic"]):
        try:
            client.create_subscription(request=request, retry=None, timeout=_TIMEOUT_SECONDS)
        except google_errors.AlreadyExists:
            return False
    return True


@contextmanager
def _calls(connection: PubSubConnection, resource: str) -> Generator[None]:
    try:
        yield
    except VENDOR_ERRORS as error:
        raise connection.error(error, resource) from error
