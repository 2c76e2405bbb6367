"""The run log that a command asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

from run_log.core import (
    ConfigurationError,
    InvalidArgumentError,
    NotFoundError,
    Settings,
    TransportUnavailableError,
)
from run_log.stores import RunLog, create_run_log_service
from run_log.stores.audit import Audit

FLUSH_SECONDS: Final = 30.0
"""How long a command waits until what it saved is published."""

_T = TypeVar("_T")


@contextlib.asynccontextmanager
async def opened_run_log(backend: str | None = None) -> AsyncGenerator[RunLog]:
    """Yield the run log that the environment names, and close it.

    Args:
        backend: Another back end than the environment's; None is that.

    Raises:
        ConfigurationError: It is one that no other process can look into, or cannot be made.
    """
    if (backend or Settings.from_env().backend) == "memory":
        raise ConfigurationError(
            "RUN_LOG_BACKEND is 'memory', which holds no run of another process; set it to 'firestore' or "
            "'pubsub', or to 'sqlite' and RUN_LOG_SQLITE_PATH to the file"
        )
    log = create_run_log_service(backend)
    try:
        yield log
    finally:
        await log.close()


@contextlib.asynccontextmanager
async def opened_audit(root: str | None = None) -> AsyncGenerator[Audit]:
    """Yield what checks the store that the environment names, and close it.

    Args:
        root: Another root collection in its database, or another file; None for its own.

    Raises:
        ConfigurationError: No other process can look into that store, or it cannot be opened.
        InvalidArgumentError: *root* is its own.
        NotFoundError: There is no such file.
    """
    settings = Settings.from_env()
    setting = "sqlite_path" if settings.backend == "sqlite" else "root_collection"
    if root is not None:
        if root == getattr(settings, setting):
            raise InvalidArgumentError(f"{root!r} is what RUN_LOG_{setting.upper()} names; pass another one")
        settings = settings.model_copy(update={setting: root})
    service = _audited_service(settings)
    try:
        yield service.audit()
    finally:
        await service.close()


def _audited_service(settings: Settings) -> Any:
    match settings.backend:
        case "sqlite":
            from run_log.stores import SQLiteRunLogService

            if not Path(settings.sqlite_path).exists():
                raise NotFoundError(f"there is no file {settings.sqlite_path!r}")
            return SQLiteRunLogService.from_settings(settings)
        case "firestore" | "pubsub":
            try:
                from run_log.stores import FirestoreRunLogService
            except ImportError as error:
                raise ConfigurationError(str(error)) from error
            return FirestoreRunLogService.from_settings(settings)
        case backend:
            raise ConfigurationError(
                f"RUN_LOG_BACKEND is {backend!r}, which cannot be looked into from here; set it to "
                "'firestore' or 'pubsub', or to 'sqlite' and RUN_LOG_SQLITE_PATH to the file"
            )


def complete(work: Coroutine[Any, Any, _T]) -> _T:
    """Return what *work* comes to, done on an event loop of its own."""
    return asyncio.run(work)


async def delivered(log: RunLog) -> None:
    """Wait until what was saved is durable.

    Raises:
        TransportUnavailableError: It is not, in bounded time.
    """
    if not await log.flush(FLUSH_SECONDS):
        raise TransportUnavailableError(
            f"it was not published in {FLUSH_SECONDS:.0f} s; try again: what arrives twice counts once"
        )
