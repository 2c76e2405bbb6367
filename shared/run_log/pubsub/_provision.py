"""The topics and subscriptions of a run log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from google.api_core import exceptions as google_errors

from run_log.core import Settings

from ._connection import VENDOR_ERRORS, PubSubConnection

ACK_DEADLINE: Final = timedelta(seconds=20)
"""How long a pulled message is leased. What a killed puller held is delivered again after that. A puller that
needs longer extends the lease."""

MAX_DELIVERY_ATTEMPTS: Final = 50
"""Deliveries before Pub/Sub itself gives a message up. With fewer, an outage of minutes would dead-letter
the whole backlog."""

RETENTION: Final = timedelta(days=7)
"""How long the event topic keeps what is published, and subscriptions keep what is not acknowledged."""

_TIMEOUT_SECONDS: Final = 20.0


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
    topic = connection.topic_path(settings.topic)
    dead_letters = connection.topic_path(settings.dead_letter_topic)
    return [
        _topic(connection, {"name": topic, "message_retention_duration": RETENTION}),
        _topic(connection, {"name": dead_letters}),
        _subscription(connection, _projector_subscription(connection, settings, topic, dead_letters)),
        _subscription(
            connection,
            {
                "name": connection.subscription_path(settings.dead_letter_topic),
                "topic": dead_letters,
                "ack_deadline_seconds": int(ACK_DEADLINE.total_seconds()),
                "message_retention_duration": RETENTION,
                "expiration_policy": {},
            },
        ),
    ]


def _projector_subscription(
    connection: PubSubConnection, settings: Settings, topic: str, dead_letters: str
) -> dict[str, Any]:
    return {
        "name": connection.subscription_path(settings.subscription),
        "topic": topic,
        "ack_deadline_seconds": int(ACK_DEADLINE.total_seconds()),
        "message_retention_duration": RETENTION,
        # An empty policy means never: the default would delete an idle platform's subscription.
        "expiration_policy": {},
        # No retry policy: it would also hold back what a killed puller had in hand (docs/adr/0025), and the
        # worker backs off by itself.
        "dead_letter_policy": {
            "dead_letter_topic": dead_letters,
            "max_delivery_attempts": MAX_DELIVERY_ATTEMPTS,
        },
    }


def _topic(connection: PubSubConnection, request: dict[str, Any]) -> Provisioned:
    client = connection.publisher()
    with client:
        return _made(
            connection,
            request["name"],
            lambda: client.create_topic(request=request, retry=None, timeout=_TIMEOUT_SECONDS),
        )


def _subscription(connection: PubSubConnection, request: dict[str, Any]) -> Provisioned:
    client = connection.subscriber()
    with client:
        return _made(
            connection,
            request["name"],
            lambda: client.create_subscription(request=request, retry=None, timeout=_TIMEOUT_SECONDS),
        )


def _made(connection: PubSubConnection, name: str, create: Callable[[], object]) -> Provisioned:
    try:
        create()
    except google_errors.AlreadyExists:
        return Provisioned(name=name, created=False)
    except VENDOR_ERRORS as error:
        raise connection.error(error, name) from error
    return Provisioned(name=name, created=True)
