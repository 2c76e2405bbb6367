"""The event topic as the store of an import: what is published is projected by the projectors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from run_log.core import (
    ConfigurationError,
    Message,
    MessageRefusedError,
    Outcome,
    RunEvent,
    StoreUnavailableError,
    TransportRefusedError,
    TransportUnavailableError,
    WriteRefusedError,
    encode_event,
)


class PublishingStore:
    """Publishes events instead of merging them. See `ProjectionStore`.

    Each outcome is applied, as what becomes of an event is only known once it is projected.

    Args:
        publish: Publishes a message, as `PubSubEvents.publish` does.
    """

    def __init__(self, publish: Callable[[Message], Awaitable[str]]) -> None:
        self._publish = publish

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """Publish *events*. They are durable when this returns."""
        answers = await asyncio.gather(
            *(self._publish(encode_event(event)) for event in events), return_exceptions=True
        )
        for answer in answers:
            match answer:
                case MessageRefusedError():
                    raise WriteRefusedError(str(answer)) from answer
                case TransportUnavailableError():
                    raise StoreUnavailableError(str(answer)) from answer
                case TransportRefusedError():
                    raise ConfigurationError(str(answer)) from answer
                case BaseException():
                    raise answer
                case _:
                    pass
        return [Outcome.APPLIED] * len(events)
