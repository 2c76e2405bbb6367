"""A provisioned Pub/Sub of the test's own, and raw calls that go past the library's own code."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from run_log.core import Message, Settings
from run_log.pubsub import PubSubConnection, provision


class RawPubSub:
    """One project's Pub/Sub, through the vendor's blocking clients."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connection = PubSubConnection.from_settings(settings)

    @classmethod
    def provisioned(cls) -> RawPubSub:
        """Return the environment's, with everything that `provision` makes."""
        raw = cls(Settings.from_env())
        provision(raw.connection, raw.settings)
        return raw

    def publish(self, messages: Sequence[Message]) -> list[str]:
        """Publish to the event topic; return the message ids."""
        batch = [{"data": message.data, "attributes": dict(message.attributes)} for message in messages]
        with self.connection.publisher() as publisher:
            topic = self.connection.topic_path(self.settings.topic)
            return list(publisher.publish(topic=topic, messages=batch).message_ids)

    def take(self, count: int, subscription: str | None = None) -> list[Any]:
        """Pull and acknowledge *count* messages of a subscription, the projector's by default."""
        path = self.connection.subscription_path(subscription or self.settings.subscription)
        taken: list[Any] = []
        with self.connection.subscriber() as subscriber:
            while len(taken) < count:
                received = subscriber.pull(
                    subscription=path, max_messages=count, timeout=30
                ).received_messages
                if received:
                    ack_ids = [item.ack_id for item in received]
                    subscriber.acknowledge(subscription=path, ack_ids=ack_ids)
                taken += [item.message for item in received]
        return taken

    def is_empty(self, subscription: str | None = None) -> bool:
        """Return whether nothing waits at a subscription, the projector's by default."""
        path = self.connection.subscription_path(subscription or self.settings.subscription)
        with self.connection.subscriber() as subscriber:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # discouraged, but exactly the question
                answer = subscriber.pull(
                    request={"subscription": path, "max_messages": 1, "return_immediately": True}, timeout=30
                )
            return not answer.received_messages
