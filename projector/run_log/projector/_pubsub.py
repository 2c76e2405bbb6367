"""Pub/Sub as the pull worker's broker, by unary calls: every lease, answer and error is visible."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from datetime import UTC, timedelta
from itertools import islice
from typing import Any, Final

from google.api_core import exceptions as google_errors
from google.pubsub_v1 import PullResponse

from run_log.core import DeadLetterReason, Message, ReceivedMessage, fit_text
from run_log.pubsub import MAX_ATTRIBUTE_NAME_BYTES, MAX_ATTRIBUTES, VENDOR_ERRORS, PubSubConnection

from ._letters import ERROR_ATTRIBUTE, LEFT_OUT_ATTRIBUTE, MESSAGE_ID_ATTRIBUTE, REASON_ATTRIBUTE
from ._pull import PullLimits

CALL_TIMEOUT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 1.0
"""How much longer than it waits a pull may take. A call's deadline is sent along, and ends the pull at the
broker also where this process was killed; the emulator answers a second before it that it has nothing."""

_UNTOLD_LEASE: Final = timedelta(seconds=60)
"""As long as any version has made a subscription lease."""

_TARDY_SECONDS: Final = 1.5
"""How long after a lease's end the broker may take to deliver again; the emulator took half a second."""

MAX_ACK_IDS: Final = 1_000
"""Ack ids in one call: Pub/Sub takes 512 KiB a request, an ack id up to about 200 bytes
(https://cloud.google.com/pubsub/quotas#resource_limits)."""

MAX_ATTRIBUTE_BYTES: Final = 1_024

_OWN_ATTRIBUTES: Final = 4


_PullResponse: Final[Any] = PullResponse


def silence_after_kill(lease: timedelta | None, *, extended: float) -> float:
    """Return the seconds without a message after which nothing is leased to a process that was killed.

    Pub/Sub tells nobody what others have leased. So that is how long such a lease may last, a pull of the
    dead go on, and the broker take to deliver again.

    Args:
        lease: For how long the subscription leases; None where it cannot be asked.
        extended: For how many seconds who pulls extends what is in hand for long; 0 for not.
    """
    seconds = max((lease or _UNTOLD_LEASE).total_seconds(), extended)
    return seconds + PullLimits().pull_seconds + ANSWER_SECONDS + _TARDY_SECONDS


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

    async def pull(self, max_messages: int, *, wait: float) -> list[ReceivedMessage] | None:
        """See `MessageSource.pull`."""
        request = {"subscription": self._subscription, "max_messages": max_messages}
        try:
            answer = await self._client.pull(request=request, retry=None, timeout=wait + ANSWER_SECONDS)
        except google_errors.DeadlineExceeded:
            return None
        except VENDOR_ERRORS as error:
            raise self._connection.error(error, self._subscription) from error
        # The message beneath the vendor's: reading it field by field through that costs ten times as much.
        return [_received(item) for item in _PullResponse.pb(answer).received_messages]

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
