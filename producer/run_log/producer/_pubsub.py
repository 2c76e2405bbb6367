"""The Pub/Sub transport. The only module that publishes events through Google's client library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from run_log.core import Message, Settings
from run_log.pubsub import VENDOR_ERRORS, PubSubConnection

PUBLISH_TIMEOUT_SECONDS: Final = 10.0
"""How long one publish call may take; the emitter tries again, the vendor's own retries are off."""


class PubSubTransport:
    """Publishes to one topic, one call a batch. No ordering keys: versions order events.

    The client is made by the first `publish` and belongs to the process that made it: gRPC does not
    survive a fork.

    Args:
        connection: Where to.
        topic: The topic's id.
    """

    def __init__(self, connection: PubSubConnection, topic: str) -> None:
        self._connection = connection
        self._topic = connection.topic_path(topic)
        self._client: Any = None
        self._owner = 0

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        if self._owner != os.getpid():
            self._client, self._owner = self._connection.publisher(), os.getpid()
        batch = [{"data": message.data, "attributes": dict(message.attributes)} for message in messages]
        try:
            self._client.publish(
                topic=self._topic,
                messages=batch,
                retry=None,
                timeout=PUBLISH_TIMEOUT_SECONDS,
            )
        except VENDOR_ERRORS as error:
            raise self._connection.error(error, self._topic) from error

    def close(self) -> None:
        """See `Transport.close`."""
        if self._client is not None and self._owner == os.getpid():
            self._client.transport.close()


def create_transport(settings: Settings) -> PubSubTransport:
    """Return the transport that *settings* describe.

    Raises:
        ConfigurationError: The project or credentials are missing.
    """
    return PubSubTransport(PubSubConnection.from_settings(settings), settings.topic)
