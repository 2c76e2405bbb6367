"""This process's emitter, for workflows that are not given one."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, cast

from run_log.core import ConfigurationError, Message, Settings, TransportRefusedError
from run_log.core.forks import renewed
from run_log.core.logs import logging_later
from run_log.stores import ProjectionStore, create_run_log_service, get_run_log_service

from ._emitter import RunEventEmitter
from ._environment import pubsub_transport
from ._store_transport import StoreTransport
from ._transport import Transport


class LazyTransport:
    """Makes the transport when it is used, in the delivery thread: vendors' libraries load slowly.

    Args:
        make: Makes it.
        ends_with_process: Whether what it takes does, so that nothing is lost which it has not got by then.
        is_loaded: Whether what it needs is imported already, so that a fork need not wait for it.
    """

    def __init__(
        self, make: Callable[[], Transport], *, ends_with_process: bool = False, is_loaded: bool = False
    ) -> None:
        self.ends_with_process = ends_with_process
        self._is_loaded = is_loaded
        self._make = make
        self._made: Transport | None = None
        self._owner = 0

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        if self._made is not None and self._owner == os.getpid():
            self._made.publish(messages)
            return
        # The first call imports, too: grpc what makes a channel, Google's credentials what they need.
        with contextlib.nullcontext() if self._is_loaded else _process.loading:
            try:
                self._made, self._owner = self._make(), os.getpid()
            except ConfigurationError as error:
                raise TransportRefusedError(str(error)) from error
            self._made.publish(messages)

    def close(self) -> None:
        """See `Transport.close`."""
        if self._made is not None and self._owner == os.getpid():
            self._made.close()


class _Process:
    """This process's emitter, and why it is not the one that was asked for, where that is so."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may record a run in the middle of it.
        self.lock = renewed(self, "lock", threading.RLock)
        # A child would inherit the lock of a module that is being imported, and wait for it for ever.
        self.loading = renewed(self, "loading", threading.RLock, is_held=True)
        self.emitter: RunEventEmitter | None = None
        self.is_misconfigured = False


_process: Final = _Process()


def default_emitter() -> RunEventEmitter:
    """Return this process's emitter, made at the first call, by ``RUN_LOG_BACKEND``.

    ``pubsub`` publishes events; every other back end has them applied directly: ``memory`` to the
    service that `get_run_log_service` returns, any other to one of the emitter's own. Where the environment
    is wrong, the log says so once something is emitted, and the next call tries again.
    """
    emitter = _process.emitter
    if emitter is not None and not _process.is_misconfigured:
        return emitter
    with logging_later(), _process.lock:
        if _process.emitter is None or _process.is_misconfigured:
            try:
                settings = Settings.from_env()
                made = RunEventEmitter.from_settings(settings, _transport(settings))
                if _process.emitter is None or _process.is_misconfigured:
                    _process.emitter, _process.is_misconfigured = made, False
            except Exception as error:  # noqa: BLE001 - at the interpreter's end even an import fails
                if _process.emitter is None:
                    _process.emitter = RunEventEmitter(LazyTransport(_refusal(error)))
                _process.is_misconfigured = True
        return _process.emitter


def reset_default_emitter() -> None:
    """Close and forget this process's emitter, so that the next run makes a new one. For tests."""
    with _process.lock:
        emitter, _process.emitter, _process.is_misconfigured = _process.emitter, None, False
    if emitter is not None:
        emitter.close()


def _transport(settings: Settings) -> Transport:
    if settings.backend == "pubsub":
        return LazyTransport(lambda: pubsub_transport(settings))
    if settings.backend == "sqlite":
        # Not in the delivery thread: a fork that met it would run half of these modules' own hooks.
        with contextlib.suppress(RuntimeError):  # the interpreter is ending: there is no thread then, either
            importlib.import_module("concurrent.futures.thread")
        importlib.import_module("run_log.stores.sqlite")
        return LazyTransport(lambda: _own_store(settings.backend), is_loaded=True)
    if settings.backend == "memory":
        return LazyTransport(_own_memory, ends_with_process=True)
    return LazyTransport(lambda: _own_store(settings.backend))


def _own_memory() -> Transport:
    get_run_log_service()  # imports it
    return StoreTransport(lambda: cast("ProjectionStore", get_run_log_service()))


def _own_store(backend: str) -> Transport:
    # A service of its own: the background thread has an event loop of its own.
    own = create_run_log_service(backend)
    return StoreTransport(lambda: cast("ProjectionStore", own), close_store=own.close)


def _refusal(error: Exception) -> Callable[[], NoReturn]:
    def refuse() -> NoReturn:
        raise ConfigurationError(str(error))

    return refuse
