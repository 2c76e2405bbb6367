"""Pub/Sub as the pull worker's broker, by unary calls: every lease, answer and error is visible."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from datetime import UTC
from itertools import islice
from typing import Any, Final

from google.api_core import exceptions as google_errors
from google.pubsub_v1 import PullResponse

from run_log.core import DeadLetterReason, Message, ReceivedMessage, fit_text, get_logger
from run_log.pubsub import (
    MAX_ANSWER_BYTES,
    MAX_ATTRIBUTE_NAME_BYTES,
    MAX_ATTRIBUTES,
    TOO_LARGE,
    VENDOR_ERRORS,
    PubSubConnection,
)

from ._letters import ERROR_ATTRIBUTE, LEFT_OUT_ATTRIBUTE, MESSAGE_ID_ATTRIBUTE, REASON_ATTRIBUTE

CALL_TIMEOUT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 1.0
"""How much longer than it waits a pull may take. A call's deadline is sent along, and ends the pull at the
broker also where this process was killed; the emulator answers a second before it that it has nothing."""

FIRST_MESSAGES: Final = 1
"""Messages in the first pull, and in one after a silence. Pub/Sub bounds a pull by their number alone: more
are asked for only once those before were small."""

MAX_ACK_IDS: Final = 1_000
"""Ack ids in one call: Pub/Sub takes 512 KiB a request, an ack id up to about 200 bytes
(https://cloud.google.com/pubsub/quotas#resource_limits)."""

MAX_ATTRIBUTE_BYTES: Final = 1_024

_OWN_ATTRIBUTES: Final = 4

_logger: Final = get_logger("run_log.projector")


_PullResponse: Final[Any] = PullResponse


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
        self._most = FIRST_MESSAGES

    async def pull(self, max_messages: int, *, wait: float) -> list[ReceivedMessage] | None:
        """See `MessageSource.pull`."""
        asked = min(max_messages, self._most)
        request = {"subscription": self._subscription, "max_messages": asked}
        try:
            answer = await self._client.pull(request=request, retry=None, timeout=wait + ANSWER_SECONDS)
        except google_errors.DeadlineExceeded:
            self._most = FIRST_MESSAGES
            return None
        except google_errors.ResourceExhausted as error:
            if TOO_LARGE not in str(error):
                raise self._connection.error(error, self._subscription) from error
            # They come again when their leases end.
            _logger.warning("run_log_pull_too_large", messages=asked, bytes=MAX_ANSWER_BYTES)
            self._most = 1
            return None
        except VENDOR_ERRORS as error:
            raise self._connection.error(error, self._subscription) from error
        # The message beneath the vendor's: reading it field by field through that costs ten times as much.
        received = _PullResponse.pb(answer)
        is_small = received.ByteSize() <= MAX_ANSWER_BYTES // 4
        self._most = max(1, asked // 2, min(2 * asked, MAX_ACK_IDS) if is_small else 0)
        if not received.received_messages:
            self._most = FIRST_MESSAGES
        return [_received(item) for item in received.received_messages]

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
        await self.extend(ack_ids, 0)

    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """See `MessageSource.extend`. Pub/Sub takes whole seconds, 600 at most; 0 gives back."""
        await self._each(
            self._client.modify_ack_deadline(
                subscription=self._subscription,
                ack_ids=part,
                ack_deadline_seconds=int(seconds),
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
            **_fitting(message.attributes),
            REASON_ATTRIBUTE: reason.value,
            ERROR_ATTRIBUTE: fit_text(error, MAX_ATTRIBUTE_BYTES) or reason.value,
            MESSAGE_ID_ATTRIBUTE: fit_text(message.message_id, MAX_ATTRIBUTE_BYTES),
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


class PubSubEvents:
    """The event topic. See `EventTopic`.

    Args:
        connection: Where it is.
        topic: The topic's id.
    """

    def __init__(self, connection: PubSubConnection, topic: str) -> None:
        self._connection = connection
        self._topic = connection.topic_path(topic)
        self._client: Any = connection.async_publisher()

    async def publish(self, message: Message) -> str:
        """See `EventTopic.publish`."""
        try:
            answer = await self._client.publish(
                topic=self._topic,
                messages=[{"data": message.data, "attributes": dict(message.attributes)}],
                retry=None,
                timeout=CALL_TIMEOUT_SECONDS,
            )
        except VENDOR_ERRORS as error:
            raise self._connection.publish_error(error, self._topic) from error
        return str(answer.message_ids[0])

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.transport.close()


def _fitting(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return *attributes* without those for which ours leave no room, and how many those are.

    Whoever may push is not held to Pub/Sub's limits, which a letter has to keep.
    """
    fitting = (
        (name, fit_text(value, MAX_ATTRIBUTE_BYTES))
        for name, value in attributes.items()
        if name and fit_text(name, MAX_ATTRIBUTE_NAME_BYTES) == name
    )
    left = dict(islice(fitting, MAX_ATTRIBUTES - _OWN_ATTRIBUTES))
    if len(left) < len(attributes):
        left[LEFT_OUT_ATTRIBUTE] = str(len(attributes) - len(left))
    return left


def _received(item: Any) -> ReceivedMessage:
    message = item.message
    return ReceivedMessage(
        data=message.data,
        attributes=dict(message.attributes),
        message_id=message.message_id,
        ack_id=item.ack_id,
        delivery_attempt=item.delivery_attempt,
        published_at=message.publish_time.ToDatetime(UTC) if message.HasField("publish_time") else None,
    )


def _parts(ack_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ack_ids), MAX_ACK_IDS):
        yield ack_ids[start : start + MAX_ACK_IDS]
