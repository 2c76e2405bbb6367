"""The Pub/Sub transport. No other module publishes events through Google's client library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Self

from google.pubsub_v1 import PublishRequest

from run_log.core import Message, MessageRefusedError, Settings, TransportUnavailableError
from run_log.core.wire import message_fault
from run_log.pubsub import PubSubConnection
from run_log.pubsub.connection import VENDOR_ERRORS

PUBLISH_TIMEOUT_SECONDS: Final = 10.0
"""The deadline of one publish call: connecting, authenticating and sending. The emitter retries; the vendor's
own retries are off."""


class PubSubTransport:
    """Publishes to one topic, one call a batch. There are no ordering keys, because versions order events.

    The client is made by the first `publish`, and again after a call that failed: the old connection may be
    half open, or its channel may wait longer than the emitter before it reconnects.
    """

    def __init__(self, connection: PubSubConnection, topic: str) -> None:
        self._connection = connection
        self._topic = connection.topic_path(topic)
        self._client: Any = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(PubSubConnection.from_settings(settings), settings.topic)

    def publish(self, messages: Sequence[Message]) -> None:
        client = self._client
        if client is None:
            client = self._client = self._connection.publisher()
        try:
            client.publish(_request(self._topic, messages), retry=None, timeout=PUBLISH_TIMEOUT_SECONDS)
        except VENDOR_ERRORS as error:
            ours = self._connection.publish_error(error, self._topic)
            if isinstance(ours, TransportUnavailableError):
                self.close()
            raise ours from error

    def close(self) -> None:
        """Close the channel. The next `publish` opens another one."""
        client, self._client = self._client, None
        if client is not None:
            client.transport.close()


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
