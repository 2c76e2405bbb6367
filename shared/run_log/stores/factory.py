"""Back ends by name, found through entry points, so that this package imports none it does not use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final, cast

from run_log.core import ConfigurationError, Settings
from run_log.core.forks import renewed
from run_log.core.install import how_to_install
from run_log.core.logs import get_logger, logging_later

from .service import RunLog

ENTRY_POINT_GROUP: Final = "run_log.backends"
"""Each entry is a function that takes `Settings` and returns a `RunLog`."""

_EXTRAS: Final[Mapping[str, str]] = {"firestore": "stores", "pubsub": "producer,stores"}
_logger: Final = get_logger("run_log.stores")


class _Process:
    """This process's run log, once it is made."""

    def __init__(self) -> None:
        # Held over a fork: a child would wait for ever for a module whose import stayed with the parent.
        self.lock = renewed(self, "lock", threading.RLock, is_held=True)
        self.services: list[RunLog] = []


_process: Final = _Process()


def create_run_log_service(backend: str | None = None) -> RunLog:
    """Return a new run log of the back end *backend*.

    Args:
        backend: ``memory``, ``firestore``, ``pubsub``, or a name that another distribution registers
            under the entry-point group ``run_log.backends``. None takes ``RUN_LOG_BACKEND``.

    Raises:
        ConfigurationError: There is no such back end, what it needs is not installed, or a setting it
            needs is missing or wrong.
    """
    settings = Settings.from_env()
    name = settings.backend if backend is None else backend
    service = _load(name)(settings)
    service.label_fields = settings.label_fields
    _logger.info("run_log_backend_selected", backend=name)
    return service


def get_run_log_service() -> RunLog:
    """Return this process's run log, made by `create_run_log_service` at the first call.

    Raises:
        ConfigurationError: See `create_run_log_service`; nothing is kept, so a later call tries again.
    """
    with logging_later(), _process.lock:
        if not _process.services:
            _process.services.append(create_run_log_service())
        return _process.services[0]


def reset_run_log_service() -> None:
    """Forget this process's run log, so that the next `get_run_log_service` makes a new one. For tests.

    The forgotten one is not closed: whoever holds it may still use it.
    """
    with _process.lock:
        _process.services.clear()


def backend_entry(name: str) -> EntryPoint:
    """Return where the back end *name* is.

    Raises:
        ConfigurationError: There is none; the message names those that are.
    """
    backends: dict[str, EntryPoint] = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in backends:
        known = ", ".join(sorted(backends)) or "none: is the distribution run-log installed?"
        raise ConfigurationError(
            f"RUN_LOG_BACKEND is {name!r}, which is no back end; the known ones are {known}"
        )
    return backends[name]


def _load(name: str) -> Callable[[Settings], RunLog]:
    entry = backend_entry(name)
    # Loaded only now: a back end's libraries are an extra, and slow to import.
    try:
        return cast("Callable[[Settings], RunLog]", entry.load())
    except ImportError as error:
        extra = _EXTRAS.get(name)
        hint = how_to_install(extra) if extra else f"install what {entry.value} needs"
        raise ConfigurationError(f"the back end {name!r} is not installed ({error}); {hint}") from error
