"""Pub/Sub as the pull worker's broker, by unary calls: every lease, answer and error is visible."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any, Final

from google.api_core import exceptions as google_errors

from run_log.core import DeadLetterReason, ReceivedMessage, fit_text
from run_log.pubsub import VENDOR_ERRORS, PubSubConnection

CALL_TIMEOUT_SECONDS: Final = 10.0
MAX_ACK_IDS: Final = 1_000
"""Ack ids in one call: Pub/Sub takes 512 KiB a request, an ack id up to about 200 bytes
(https://cloud.google.com/pubsub/quotas#resource_limits)."""

MAX_ATTRIBUTE_BYTES: Final = 1_024

REASON_ATTRIBUTE: Final = "run-log-reason"
ERROR_ATTRIBUTE: Final = "run-log-error"
MESSAGE_ID_ATTRIBUTE: Final = "run-log-message-id"


class PubSubSource:
    """One subscription, pulled. See `MessageSource`.

    Args:
        connection: Where it is.
        subscription: The subscription's id.
    """

    def __init__(self, connection: PubSubConnection, subscription: str) -> None:
        self._connection = connection
        self._subscription = connection.subscription_path(subscription)
        self._client: Any = connection.async_subscriber()

    async def pull(self, max_messages: int, *, wait: float) -> list[ReceivedMessage]:
        """See `MessageSource.pull`."""
        request = {"subscription": self._subscription, "max_messages": max_messages}
        try:
            response = await self._client.pull(request=request, retry=None, timeout=wait)
        except google_errors.DeadlineExceeded:
            return []
        except VENDOR_ERRORS as error:
            raise self._connection.error(error, self._subscription) from error
        return [
            ReceivedMessage(
                data=item.message.data,
                attributes=dict(item.message.attributes),
                message_id=item.message.message_id,
                ack_id=item.ack_id,
                delivery_attempt=item.delivery_attempt,
            )
            for item in response.received_messages
        ]

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.acknowledge`."""
        await self._each(
            self._client.acknowledge(
                subscription=self._subscription, ack_ids=part, retry=None, timeout=CALL_TIMEOUT_SECONDS
            )
            for part in _parts(ack_ids)
        )

    async def release(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.release`."""
        await self._each(
            self._client.modify_ack_deadline(
                subscription=self._subscription,
                ack_ids=part,
                ack_deadline_seconds=0,
                retry=None,
                timeout=CALL_TIMEOUT_SECONDS,
            )
            for part in _parts(ack_ids)
        )

    async def close(self) -> None:
        """See `MessageSource.close`."""
        await self._client.transport.close()

    async def _each(self, calls: Iterator[Awaitable[object]]) -> None:
        try:
            await asyncio.gather(*calls)
        except VENDOR_ERRORS as error:
            raise self._connection.error(error, self._subscription) from error


class PubSubDeadLetters:
    """The dead-letter topic: the message as it came, with why it is there. See `DeadLetters`.

    Args:
        connection: Where it is.
        topic: The topic's id.
    """

    def __init__(self, connection: PubSubConnection, topic: str) -> None:
        self._connection = connection
        self._topic = connection.topic_path(topic)
        self._client: Any = connection.async_publisher()

    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
        """See `DeadLetters.put`."""
        attributes = {
            **message.attributes,
            REASON_ATTRIBUTE: reason.value,
            ERROR_ATTRIBUTE: fit_text(error, MAX_ATTRIBUTE_BYTES) or reason.value,
            MESSAGE_ID_ATTRIBUTE: message.message_id,
        }
        try:
            await self._client.publish(
                topic=self._topic,
                messages=[{"data": message.data, "attributes": attributes}],
                retry=None,
                timeout=CALL_TIMEOUT_SECONDS,
            )
        except VENDOR_ERRORS as vendor:
            raise self._connection.error(vendor, self._topic) from vendor

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.transport.close()


def _parts(ack_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ack_ids), MAX_ACK_IDS):
        yield ack_ids[start : start + MAX_ACK_IDS]
