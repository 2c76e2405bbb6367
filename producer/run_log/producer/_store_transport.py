"""A transport that needs no broker: events go straight into a store of this process's choice."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from run_log.core import (
    ConfigurationError,
    Message,
    MessageRefusedError,
    RunLogError,
    StoreError,
    TransportRefusedError,
    TransportUnavailableError,
    WriteRefusedError,
    decode_event,
)
from run_log.stores import ProjectionStore


class StoreTransport:
    """Applies events to a store, in the emitter's background thread and an event loop of its own.

    What is published after `close`, at the end of the process, has a loop for itself.

    Args:
        current_store: Returns the store; called in that thread, for each batch.
        close_store: Lets go of the store, in the same event loop; None where it belongs to somebody else.
    """

    def __init__(
        self,
        current_store: Callable[[], ProjectionStore],
        *,
        close_store: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._current_store = current_store
        self._close_store = close_store
        self._loops: list[asyncio.AbstractEventLoop] = []
        self._owner = 0
        self._closed = False

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        if self._owner != os.getpid() or self._loops[-1].is_closed():
            # After a fork the parent's loop is kept, unused: it shares its selector with the parent, and
            # closing it here would deafen the parent's.
            self._loops.append(asyncio.new_event_loop())
            self._owner = os.getpid()
        loop = self._loops[-1]
        try:
            events = [decode_event(message) for message in messages]
            loop.run_until_complete(self._current_store().apply(events))
        except ConfigurationError as error:
            raise TransportRefusedError(str(error)) from error
        except RunLogError as error:
            if isinstance(error, StoreError) and not isinstance(error, WriteRefusedError):
                raise TransportUnavailableError(f"the store does not take events now: {error}") from error
            # Among them one of a newer schema, and one of a run whose stored form cannot be read.
            raise MessageRefusedError(f"the store does not take one of these events: {error}") from error
        finally:
            if self._closed:
                self._let_go(loop)

    def close(self) -> None:
        """See `Transport.close`."""
        self._closed = True
        # A batch that outlives the emitter's patience keeps its loop, and closes it.
        if self._owner != os.getpid() or self._loops[-1].is_running() or self._loops[-1].is_closed():
            return
        if self._close_store is None or not _is_loop_running():
            self._let_go(self._loops[-1])
            return
        aside = threading.Thread(target=self._let_go, args=(self._loops[-1],), name="run-log-close")
        aside.start()
        aside.join()

    def _let_go(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if self._close_store is not None:
                loop.run_until_complete(self._close_store())
        finally:
            loop.close()


def _is_loop_running() -> bool:
    """Return whether this thread is within an event loop: it could not run another one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
