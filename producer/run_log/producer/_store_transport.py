"""A transport without a broker: events go straight into a store."""

from __future__ import annotations

import asyncio
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

    A `publish` after `close`, at the end of the process, has another loop.
    """

    def __init__(
        self,
        current_store: Callable[[], ProjectionStore],
        *,
        close_store: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._current_store = current_store
        self._close_store = close_store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def publish(self, messages: Sequence[Message]) -> None:
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        loop = self._loop
        try:
            events = [decode_event(message) for message in messages]
            loop.run_until_complete(self._current_store().apply(events))
        except ConfigurationError as error:
            raise TransportRefusedError(str(error)) from error
        except RunLogError as error:
            if isinstance(error, StoreError) and not isinstance(error, WriteRefusedError):
                raise TransportUnavailableError(f"the store takes no events now: {error}") from error
            # An event of a newer schema, for example, or one of a run whose stored form cannot be read.
            raise MessageRefusedError(f"the store refuses one of these events: {error}") from error
        finally:
            if self._closed:
                self._let_go(loop)

    def close(self) -> None:
        """Close the store and the loop, unless a batch is under way: then `publish` closes them."""
        self._closed = True
        loop = self._loop
        if loop is None or loop.is_running() or loop.is_closed():
            return
        if self._close_store is None or not _is_loop_running():
            self._let_go(loop)
            return
        # A thread that runs an event loop cannot run another one.
        aside = threading.Thread(target=self._let_go, args=(loop,), name="run-log-close")
        aside.start()
        aside.join()

    def _let_go(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if self._close_store is not None:
                loop.run_until_complete(self._close_store())
        finally:
            loop.close()


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
