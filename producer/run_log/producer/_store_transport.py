"""A transport that needs no broker: events go straight into a store of this process's choice."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Final

from run_log.core import (
    Message,
    StoreError,
    TransportUnavailableError,
    WriteRefusedError,
    decode_event,
    get_logger,
)
from run_log.stores import ProjectionStore

_logger: Final = get_logger("run_log.producer")


class StoreTransport:
    """Applies events to a store, in the emitter's background thread and an event loop of its own.

    Args:
        current_store: Returns the store; called in that thread, for each batch.
    """

    def __init__(self, current_store: Callable[[], ProjectionStore]) -> None:
        self._current_store = current_store
        self._loops: list[asyncio.AbstractEventLoop] = []
        self._owner = 0
        self._closed = False

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        if self._owner != os.getpid():
            # After a fork the parent's loop is kept, unused: it shares its selector with the parent, and
            # closing it here would deafen the parent's.
            self._loops.append(asyncio.new_event_loop())
            self._owner = os.getpid()
        loop = self._loops[-1]
        try:
            if self._closed:
                raise TransportUnavailableError("the transport is closed")
            loop.run_until_complete(self._apply(self._current_store(), messages))
        except StoreError as error:
            raise TransportUnavailableError(f"the store does not take events now: {error}") from error
        finally:
            if self._closed:
                loop.close()

    def close(self) -> None:
        """See `Transport.close`. The store belongs to whoever opened it."""
        self._closed = True
        # A batch that outlives the emitter's patience keeps its loop, and closes it.
        if self._owner == os.getpid() and not self._loops[-1].is_running():
            self._loops[-1].close()

    async def _apply(self, store: ProjectionStore, messages: Sequence[Message]) -> None:
        try:
            await store.apply([decode_event(message) for message in messages])
        except WriteRefusedError as error:
            # One event would hold up all others for ever: halve the batch, and give up on it alone.
            if len(messages) == 1:
                event_id = messages[0].attributes.get("ce-id")
                _logger.error("run_log_write_refused", event_id=event_id, error=str(error))  # noqa: TRY400 - it says all
                return
            half = len(messages) // 2
            await self._apply(store, messages[:half])
            await self._apply(store, messages[half:])
