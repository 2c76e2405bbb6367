"""Where an emitter's messages go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from run_log.core import Message

MAX_BATCH_EVENTS: Final = 1_000
"""Pub/Sub's limit for one publish call (https://cloud.google.com/pubsub/quotas#resource_limits)."""

MAX_BATCH_BYTES: Final = 5 * 2**20
"""Of bodies and attributes. Half of Pub/Sub's 10 MB for one publish call: a slow line has to manage it within
the call's time."""

MIN_BATCH_BYTES: Final = 65_536
"""A call's bytes after many that were not answered in time, unless its first event alone is larger."""

MAX_REFUSALS: Final = 64
"""Refusals in a row after which a batch is not looked through further for now: it may be the topic's."""


class Transport(Protocol):
    """Takes messages from the emitter's background thread. Calls never overlap.

    A call is not repeated inside: the emitter retries, and one layer is enough.
    """

    def publish(self, messages: Sequence[Message]) -> None:
        """Hand over *messages*; when this returns they are durable. May block, for a bounded time.

        Args:
            messages: At least one.

        Raises:
            TransportUnavailableError: None or some were taken; all will be handed over again.
            TransportRefusedError: Nothing will be taken until somebody acts.
            MessageRefusedError: None was taken, since one of them never will be; the others may be taken
                without it.
        """
        ...

    def close(self) -> None:
        """Let go of connections, from any thread; a `publish` under way may fail.

        At the end of the process another `publish` and `close` may follow: it connects again, or raises.
        """
        ...


def message_bytes(message: Message) -> int:
    """Return about how many bytes *message* takes in a publish call: body, attributes and their frames."""
    return (
        len(message.data) + sum(len(name) + len(value) + 8 for name, value in message.attributes.items()) + 8
    )
