"""Pub/Sub as a message source, as an event topic and as the place of dead letters, by unary calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, timedelta
from typing import Any, Final

from google.api_core import exceptions as google_errors
from google.pubsub_v1 import PullResponse
from typing_extensions import override

from run_log.core import DeadLetterReason, Message, MessageRefusedError, ReceivedMessage
from run_log.core.logs import get_logger
from run_log.core.payload import fit_text
from run_log.core.wire import (
    ATTRIBUTE_FRAME_BYTES,
    MAX_ATTRIBUTE_VALUE_BYTES,
    MAX_ATTRIBUTES,
    MAX_MESSAGE_BYTES,
    message_bytes,
    message_fault,
)
from run_log.pubsub import PubSubConnection
from run_log.pubsub.connection import MAX_ANSWER_BYTES, TOO_LARGE, VENDOR_ERRORS

from .dead_letters.letters import (
    COMPRESSED,
    CUT_ATTRIBUTE,
    ERROR_ATTRIBUTE,
    LEFT_OUT_ATTRIBUTE,
    MESSAGE_ID_ATTRIBUTE,
    PACKED_ATTRIBUTE,
    PLAIN,
    REASON_ATTRIBUTE,
    is_ours,
    packed,
)
from .in_hand import count, meter
from .ports import DeadLetters, MessageSource
from .pull import PullLimits

CALL_TIMEOUT_SECONDS: Final = 10.0
"""Deadline of each call but a pull. Calls have ``retry=None``: the worker retries, and retries of the client
below it would multiply with these, and hide the errors."""

ANSWER_SECONDS: Final = 1.0
"""How much longer than its wait a pull may take. The deadline of a call is sent to the broker, and ends the
pull there even if this process is killed. The emulator answers one second before it that it has nothing."""

# The longest lease that any version has given to a subscription.
_UNKNOWN_LEASE: Final = timedelta(seconds=60)

# How long after the end of a lease the broker may take to deliver again. The emulator took half a second.
_REDELIVERY_SECONDS: Final = 1.5

FIRST_MESSAGES: Final = 1
"""Messages in the first pull, and in the first after a silence. Pub/Sub bounds a pull by their number alone,
so more are asked for only while messages are small."""

MAX_ACK_IDS: Final = 1_000
"""Ack ids in one call. Pub/Sub takes 512 KiB in a request, and an ack id has up to about 200 bytes
(https://cloud.google.com/pubsub/quotas#resource_limits)."""

# Bytes of a request with one message, beside the message and the topic's name. Pub/Sub's limit for a message
# is its limit for the whole request.
_REQUEST_FRAME_BYTES: Final = 24 + MAX_ATTRIBUTES

# Bytes of the error that a dead letter keeps, even if its message has to be cut for them.
_LEAST_ERROR_BYTES: Final = 64

_LOST: Final = (CUT_ATTRIBUTE, LEFT_OUT_ATTRIBUTE)

_logger: Final = get_logger("run_log.projector")
_cut_letters: Final = meter.create_counter(
    "run_log.projector.dead_letters.cut",
    unit="{message}",
    description="Messages whose dead letter is incomplete",
)

_PullResponse: Final[Any] = PullResponse


def silence_after_kill(lease: timedelta | None, *, extended: float) -> float:
    """Return the seconds of silence after which no message is leased to a process that was killed.

    *lease* is the ack deadline of the subscription; None if it is not known. *extended* is how many seconds
    an extended lease lasts; 0 if leases are not extended.
    """
    # Pub/Sub does not tell what others have leased. So this is the sum of how long such a lease may last, how
    # long a pull of the killed process may go on, and how long the broker may take to deliver again.
    seconds = max((lease or _UNKNOWN_LEASE).total_seconds(), extended)
    return seconds + PullLimits().pull_seconds + ANSWER_SECONDS + _REDELIVERY_SECONDS


class PubSubSource(MessageSource):
    """A subscription, by its id, as a `MessageSource`."""

    def __init__(self, connection: PubSubConnection, subscription: str) -> None:
        self._connection = connection
        self._subscription = connection.subscription_path(subscription)
        self._client: Any = connection.async_subscriber()
        self._most = FIRST_MESSAGES

    @override
    async def pull(self, max_messages: int, *, wait: float) -> list[ReceivedMessage] | None:
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
            # The client refuses the answer, but Pub/Sub has leased its messages: they come again after that.
            _logger.warning("run_log_pull_too_large", messages=asked, bytes=MAX_ANSWER_BYTES)
            self._most = 1
            return None
        except VENDOR_ERRORS as error:
            raise self._connection.error(error, self._subscription) from error
        # The protocol buffer itself: reading it through the vendor's wrapper takes ten times as long.
        received = _PullResponse.pb(answer)
        is_small = received.ByteSize() <= MAX_ANSWER_BYTES // 4
        # Doubled while answers are small, else halved: one step too far costs a lease of all the messages.
        self._most = max(1, asked // 2, min(2 * asked, MAX_ACK_IDS) if is_small else 0)
        if not received.received_messages:
            self._most = FIRST_MESSAGES
        return [_received(item) for item in received.received_messages]

    @override
    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        await self._each(self._client.acknowledge, ack_ids)

    @override
    async def release(self, ack_ids: Sequence[str]) -> None:
        await self.extend(ack_ids, 0)

    @override
    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        # Pub/Sub takes whole seconds, at most 600; 0 gives a message back.
        await self._each(self._client.modify_ack_deadline, ack_ids, ack_deadline_seconds=int(seconds))

    @override
    async def close(self) -> None:
        await self._client.transport.close()

    async def _each(self, call: Any, ack_ids: Sequence[str], **options: Any) -> None:
        where = {"subscription": self._subscription, "retry": None, "timeout": CALL_TIMEOUT_SECONDS}
        parts = [ack_ids[start : start + MAX_ACK_IDS] for start in range(0, len(ack_ids), MAX_ACK_IDS)]
        try:
            await asyncio.gather(*(call(ack_ids=part, **where, **options) for part in parts))
        except VENDOR_ERRORS as error:
            raise self._connection.error(error, self._subscription) from error


@contextlib.asynccontextmanager
async def opened_source(connection: PubSubConnection, subscription: str) -> AsyncGenerator[PubSubSource]:
    """Yield a subscription as a source, and close it at the end of the block."""
    source = PubSubSource(connection, subscription)
    try:
        yield source
    finally:
        await source.close()


class _Topic:
    """A topic of Pub/Sub, by its id."""

    def __init__(self, connection: PubSubConnection, topic: str) -> None:
        self._connection = connection
        self._path = connection.topic_path(topic)
        self._client: Any = connection.async_publisher()

    async def _published(self, message: Message) -> Any:
        """Publish *message*, and return the vendor's answer; raises the vendor's errors."""
        return await self._client.publish(
            topic=self._path,
            messages=[{"data": message.data, "attributes": dict(message.attributes)}],
            retry=None,
            timeout=CALL_TIMEOUT_SECONDS,
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._client.transport.close()


class PubSubDeadLetters(_Topic, DeadLetters):
    """A topic that keeps each message as it came, with the reason. See `DeadLetters`."""

    @override
    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
        why = {
            REASON_ATTRIBUTE: reason.value,
            MESSAGE_ID_ATTRIBUTE: fit_text(message.message_id, MAX_ATTRIBUTE_VALUE_BYTES),
        }
        error = fit_text(error, MAX_ATTRIBUTE_VALUE_BYTES) or reason.value
        room = MAX_MESSAGE_BYTES - len(self._path.encode()) - _REQUEST_FRAME_BYTES
        letter = _as_it_is(message, why, error, room)
        if letter is None:
            # In a thread: compressing ten megabytes would hold up the event loop.
            letter = await asyncio.to_thread(_packed, message, why, error, room)
        try:
            await self._published(letter)
        except VENDOR_ERRORS as vendor:
            raise self._connection.error(vendor, self._path) from vendor
        if left_out := {name: letter.attributes[name] for name in _LOST if name in letter.attributes}:
            count(_cut_letters)
            _logger.warning("run_log_dead_letter_cut", message_id=message.message_id, **left_out)


class PubSubEvents(_Topic):
    """The topic that dead letters are published to again."""

    async def publish(self, message: Message) -> str:
        """Publish *message*, and return its id. It is durable when this returns.

        Raises:
            MessageRefusedError: Pub/Sub never takes this message.
            TransportUnavailableError: Pub/Sub does not answer; it may have taken the message.
            TransportRefusedError: It refuses until somebody acts, for example without the topic.
        """
        try:
            answer = await self._published(message)
        except UnicodeEncodeError as error:
            # A message that was pushed here may break Pub/Sub's rules.
            raise MessageRefusedError(f"Pub/Sub does not take this message: {error}") from error
        except VENDOR_ERRORS as error:
            raise self._connection.publish_error(error, self._path) from error
        return str(answer.message_ids[0])


def _as_it_is(message: ReceivedMessage, why: Mapping[str, str], error: str, room: int) -> Message | None:
    """Return *message* with the attributes *why*; None if Pub/Sub would not take it so."""
    if any(map(is_ours, message.attributes)):
        return None  # its own attributes could be taken for ours
    letter = Message(data=message.data, attributes={**message.attributes, **why, ERROR_ATTRIBUTE: ""})
    if message_fault(letter) is not None:
        return None
    return _with_error(letter, error, room)


def _packed(message: ReceivedMessage, why: Mapping[str, str], error: str, room: int) -> Message:
    """Return a letter that holds *message*, attributes included, in its body."""
    # Text compresses, so the whole of any event fits. If a message does not fit, its end is left out.
    for how in (PLAIN, COMPRESSED):
        attributes = {**why, PACKED_ATTRIBUTE: how, ERROR_ATTRIBUTE: ""}
        letter = _with_error(Message(data=packed(message, how), attributes=attributes), error, room)
        if letter is not None:
            return letter
    attributes = {**why, PACKED_ATTRIBUTE: PLAIN, ERROR_ATTRIBUTE: fit_text(error, _LEAST_ERROR_BYTES)}
    kept = Message(data=message.data, attributes=message.attributes)
    if len(packed(Message(data=b"", attributes=message.attributes), PLAIN)) > room // 2:
        kept = Message(data=message.data)
        attributes[LEFT_OUT_ATTRIBUTE] = str(len(message.attributes))
    excess = message_bytes(Message(data=packed(kept, PLAIN), attributes=attributes)) - room
    if excess > 0:
        excess += ATTRIBUTE_FRAME_BYTES + len(CUT_ATTRIBUTE) + len(str(len(kept.data)))
        attributes[CUT_ATTRIBUTE] = str(excess)
        kept = Message(data=kept.data[:-excess], attributes=kept.attributes)
    return Message(data=packed(kept, PLAIN), attributes=attributes)


def _with_error(letter: Message, error: str, room: int) -> Message | None:
    """Return *letter* with as much of *error* as there is room for; None if that is too little."""
    left = room - message_bytes(letter)
    if left < min(len(error.encode()), _LEAST_ERROR_BYTES):
        return None
    return Message(data=letter.data, attributes={**letter.attributes, ERROR_ATTRIBUTE: fit_text(error, left)})


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
