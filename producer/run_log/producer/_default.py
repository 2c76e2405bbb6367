"""This process's emitter, for workflows that are not given one."""

from __future__ import annotations

import threading
from typing import Final, cast

from run_log.core import Settings, get_logger
from run_log.stores import ProjectionStore, create_run_log_service, get_run_log_service

from ._emitter import EmitterStats, FlushReport, RunEventEmitter
from ._store_transport import StoreTransport

_logger: Final = get_logger("run_log.producer")
_lock: Final = threading.Lock()
_emitters: Final[list[RunEventEmitter]] = []


class DisabledEmitter:
    """Takes the place of an emitter that cannot be made: a workflow runs on, unrecorded and logged."""

    def __init__(self) -> None:
        self._dropped = 0
        self.cause: Exception | None = None

    def emit(self, run: object) -> None:
        """Count *run* as dropped, and log that it is not recorded, and why."""
        self._dropped += 1
        _logger.error("run_log_not_recorded", type=type(run).__name__, error=str(self.cause))

    async def flush(self, timeout: float = 2.0) -> FlushReport:  # noqa: ARG002, ASYNC109 - an emitter's
        """Return at once: there is nothing to wait for."""
        return self.close()

    def close(self, timeout: float = 2.0) -> FlushReport:  # noqa: ARG002 - an emitter's signature
        """Return at once: there is nothing to deliver."""
        return FlushReport(delivered=0, pending=0, dropped=self.stats.dropped)

    @property
    def stats(self) -> EmitterStats:
        """The counters now: everything emitted is dropped."""
        return EmitterStats(emitted=self._dropped, delivered=0, pending=0, dropped=self._dropped)


_disabled: Final = DisabledEmitter()


def default_emitter() -> RunEventEmitter | DisabledEmitter:
    """Return this process's emitter, made at the first call, by ``RUN_LOG_BACKEND``.

    ``pubsub`` publishes events; every other back end has them applied directly: ``memory`` to the
    service that `get_run_log_service` returns. Where the environment is wrong, what is emitted is logged
    as not recorded, and the next call tries again.
    """
    with _lock:
        if not _emitters:
            try:
                _emitters.append(_create(Settings.from_env()))
            except Exception as error:  # noqa: BLE001 - a workflow never notices
                _disabled.cause = error
                return _disabled
        return _emitters[0]


def reset_default_emitter() -> None:
    """Close and forget this process's emitter, so that the next run makes a new one. For tests."""
    with _lock:
        while _emitters:
            _emitters.pop().close()


def _create(settings: Settings) -> RunEventEmitter:
    if settings.backend == "pubsub":
        return RunEventEmitter.from_env()
    if settings.backend == "memory":
        return RunEventEmitter(StoreTransport(lambda: cast("ProjectionStore", get_run_log_service())))
    # A service's own: the background thread has an event loop of its own.
    own = create_run_log_service(settings.backend)
    return RunEventEmitter(StoreTransport(lambda: cast("ProjectionStore", own)))
