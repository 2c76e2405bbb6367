"""What the projector needs from a broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from run_log.core import DeadLetterReason, ReceivedMessage


class MessageSource(Protocol):
    """Leases messages. Delivery is at least once: what is not acknowledged in time comes again.

    Each call may raise `TransportUnavailableError`: the broker is not available, and the messages come again
    later. Or `TransportRefusedError`: the broker refuses until somebody acts, for example without the
    subscription. Ack ids that are expired or unknown are ignored.
    """

    async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage] | None:
        """Lease messages, and wait up to *wait* seconds for the first one. Several pulls may wait at once.

        Do not cancel a pull. The broker may go on with it, and lease messages that nobody receives.

        Returns:
            The messages; an empty sequence if the broker has none now; None if it did not answer.
        """
        ...

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Acknowledge these deliveries, so that they do not come again."""
        ...

    async def release(self, ack_ids: Sequence[str]) -> None:
        """Give these deliveries back, to be delivered again."""
        ...

    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """Lease these deliveries for *seconds* from now on. After an error, they end when they would have."""
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
