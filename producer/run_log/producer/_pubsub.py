"""The Pub/Sub transport. The only module that publishes events through Google's client library."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from google.pubsub_v1 import PublishRequest

from run_log.core import (
    ConfigurationError,
    Message,
    MessageRefusedError,
    Settings,
    TransportRefusedError,
    TransportUnavailableError,
)
from run_log.pubsub import VENDOR_ERRORS, PubSubConnection, message_fault

PUBLISH_TIMEOUT_SECONDS: Final = 10.0
"""The total deadline of one publish call: connecting, authenticating and sending. The emitter tries again;
the vendor's own retries are off."""


class PubSubTransport:
    """Publishes to one topic, one call a batch. No ordering keys: versions order events.

    The client is made by the first `publish` and belongs to the process that made it: gRPC does not
    survive a fork. After a call that failed the next one has a connection of its own: the old one may be a
    stream into the void, or a channel that waits longer than we do before it connects again.

    Args:
        connect: Finds project and credentials; called by the first `publish`, until it works.
        topic: The topic's id.
    """

    def __init__(self, connect: Callable[[], PubSubConnection], topic: str) -> None:
        self._connect = connect
        self._topic = topic
        self._connection: PubSubConnection | None = None
        self._client: Any = None
        self._owner = 0

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        connection, client = self._connected()
        topic = connection.topic_path(self._topic)
        try:
            client.publish(_request(topic, messages), retry=None, timeout=PUBLISH_TIMEOUT_SECONDS)
        except VENDOR_ERRORS as error:
            ours = connection.publish_error(error, topic)
            if isinstance(ours, TransportUnavailableError):
                self.close()
            raise ours from error

    def close(self) -> None:
        """See `Transport.close`."""
        client, self._client = self._client, None
        if client is not None and self._owner == os.getpid():
            client.transport.close()

    def _connected(self) -> tuple[PubSubConnection, Any]:
        if self._owner != os.getpid():
            self._client, self._connection, self._owner = None, None, os.getpid()
        if self._connection is None:
            try:
                self._connection = self._connect()
            except ConfigurationError as error:
                raise TransportRefusedError(str(error)) from error
        client = self._client
        if client is None:
            client = self._client = self._connection.publisher()
        return self._connection, client


def create_transport(settings: Settings) -> PubSubTransport:
    """Return the transport that *settings* describe; nothing is connected, or looked for, before its use."""
    return PubSubTransport(lambda: PubSubConnection.from_settings(settings), settings.topic)


def _request(topic: str, messages: Sequence[Message]) -> Any:
    vendor: Any = PublishRequest  # not annotated
    request = vendor(topic=topic)
    # The protobuf message itself: the vendor's wrapper takes several times as long for each value.
    raw = vendor.pb(request)
    for message in messages:
        fault = message_fault(message)
        if fault is not None:
            raise MessageRefusedError(f"Pub/Sub does not take this message: {fault}")
        raw.messages.add(data=message.data, attributes=dict(message.attributes))
    return request
