"""A transport that needs no broker: events go straight into a store of this process's choice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from run_log.core import Message, StoreError, TransportUnavailableError, decode_event
from run_log.stores import ProjectionStore


class StoreTransport:
    """Applies events to a store, in the emitter's background thread and an event loop of its own.

    Args:
        open_store: Returns the store; called in that thread, at the first batch.
    """

    def __init__(self, open_store: Callable[[], ProjectionStore]) -> None:
        self._open_store = open_store
        self._store: ProjectionStore | None = None
        self._runner = asyncio.Runner()

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        try:
            if self._store is None:
                self._store = self._open_store()
            self._runner.run(self._apply(self._store, messages))
        except StoreError as error:
            raise TransportUnavailableError(f"the store does not take events now: {error}") from error

    def close(self) -> None:
        """See `Transport.close`. The store belongs to whoever opened it."""
        # A batch that outlives the emitter's patience keeps its loop; it ends with its daemon thread.
        with contextlib.suppress(RuntimeError):
            self._runner.close()

    async def _apply(self, store: ProjectionStore, messages: Sequence[Message]) -> None:
        await store.apply([decode_event(message) for message in messages])
