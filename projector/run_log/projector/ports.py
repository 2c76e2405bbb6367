"""What the projector needs of a broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from run_log.core import DeadLetterReason, Message, ReceivedMessage


class MessageSource(Protocol):
    """Leases messages. At least once: what is not acknowledged in time is delivered again."""

    async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage] | None:
        """Lease messages, and wait *wait* seconds for a first one. Several pulls may wait at once.

        Let a pull end by itself. One that is cancelled may go on at the broker, and what it takes then is
        leased to nobody until the lease ends.

        Returns:
            The messages; none where the broker says that it has none now; None where it did not answer.

        Raises:
            TransportUnavailableError: The broker does not answer.
            TransportRefusedError: It will not, until somebody acts (no such subscription).
        """
        ...

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Say that these deliveries are done with. An expired or unknown one is ignored.

        Raises:
            TransportUnavailableError: The broker does not answer; the messages come again.
            TransportRefusedError: It will not, until somebody acts.
        """
        ...

    async def release(self, ack_ids: Sequence[str]) -> None:
        """Give these deliveries back, to be delivered again. An expired or unknown one is ignored.

        Raises:
            TransportUnavailableError: The broker does not answer; the messages come again later.
            TransportRefusedError: It will not, until somebody acts.
        """
        ...

    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """Have these deliveries leased for *seconds* from now on. An expired or unknown one is ignored.

        Raises:
            TransportUnavailableError: The broker does not answer; the leases may end as they would have.
            TransportRefusedError: It will not, until somebody acts.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class DeadLetters(Protocol):
    """Keeps the messages that cannot be projected."""

    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
        """Keep *message* with why it is here; durable when this returns.

        Args:
            message: As it was delivered.
            reason: The machine-readable cause.
            error: What went wrong, for people.

        Raises:
            TransportUnavailableError: It is not kept; the message must not be acknowledged.
            TransportRefusedError: It is not kept, and will not be until somebody acts.
        """
        ...


class EventTopic(Protocol):
    """Takes messages for the projectors."""

    async def publish(self, message: Message) -> str:
        """Publish *message* and return the id it got; durable when this returns.

        Raises:
            MessageRefusedError: It is never taken as it is.
            TransportUnavailableError: The broker does not answer; it may have been taken.
            TransportRefusedError: It will not, until somebody acts (no such topic).
        """
        ...
