"""Where an emitter's messages go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from run_log.core import Message


class Transport(Protocol):
    """Takes messages from the emitter's background thread. Calls never overlap."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Hand over *messages*; when this returns they are durable. May block, for a bounded time.

        Args:
            messages: At least one.

        Raises:
            TransportUnavailableError: None or some were taken; all will be handed over again.
            TransportRefusedError: Nothing will be taken until somebody acts.
        """
        ...

    def close(self) -> None:
        """Let go of connections, from any thread; a `publish` under way may fail."""
        ...
