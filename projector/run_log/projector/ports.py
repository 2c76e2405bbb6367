"""What the projector needs from a broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from run_log.core import DeadLetterReason, Message, ReceivedMessage


class MessageSource(Protocol):
    """Leases messages. Delivery is at least once: what is not acknowledged in time comes again."""

    async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage] | None:
        """Lease messages, and wait up to *wait* seconds for the first one. Several pulls may wait at once.

        Do not cancel a pull. The broker may go on with it, and lease messages that nobody receives.

        Returns:
            The messages; an empty sequence if the broker has none now; None if it did not answer.

        Raises:
            TransportUnavailableError: The broker is not available.
            TransportRefusedError: It refuses until somebody acts, for example without the subscription.
        """
        ...

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Acknowledge these deliveries, so that they do not come again. Expired and unknown ones are ignored.

        Raises:
            TransportUnavailableError: The broker does not answer; the messages come again.
            TransportRefusedError: It refuses until somebody acts.
        """
        ...

    async def release(self, ack_ids: Sequence[str]) -> None:
        """Give these deliveries back, to be delivered again. Expired and unknown ones are ignored.

        Raises:
            TransportUnavailableError: The broker does not answer; the messages come again later.
            TransportRefusedError: It refuses until somebody acts.
        """
        ...

    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """Lease these deliveries for *seconds* from now on. Expired and unknown ones are ignored.

        Raises:
            TransportUnavailableError: The broker does not answer; the leases may end at their old time.
            TransportRefusedError: It refuses until somebody acts.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class DeadLetters(Protocol):
    """Keeps the messages that cannot be projected."""

    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
        """Keep *message* with the reason. It is durable when this returns.

        Args:
            message: As it was delivered.
            reason: Why it cannot be projected, for programs.
            error: Why it cannot be projected, for people.

        Raises:
            TransportUnavailableError: It is not kept. The message must not be acknowledged.
            TransportRefusedError: It is not kept, and cannot be until somebody acts.
        """
        ...


class EventTopic(Protocol):
    """Takes messages for the projectors."""

    async def publish(self, message: Message) -> str:
        """Publish *message*, and return its id. It is durable when this returns.

        Raises:
            MessageRefusedError: The broker never takes this message.
            TransportUnavailableError: The broker does not answer; it may have taken the message.
            TransportRefusedError: It refuses until somebody acts, for example without the topic.
        """
        ...
