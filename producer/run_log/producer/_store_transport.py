"""A transport that needs no broker: events go straight into a store of this process's choice."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

from run_log.core import (
    ConfigurationError,
    Message,
    MessageRefusedError,
    StoreError,
    TransportRefusedError,
    TransportUnavailableError,
    WriteRefusedError,
    decode_event,
)
from run_log.stores import ProjectionStore


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
            events = [decode_event(message) for message in messages]
            loop.run_until_complete(self._current_store().apply(events))
        except ConfigurationError as error:
            raise TransportRefusedError(str(error)) from error
        except WriteRefusedError as error:
            raise MessageRefusedError(f"the store does not take one of these events: {error}") from error
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
