"""The run log that a command asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Final, TypeVar

from run_log.core import ConfigurationError, Settings, TransportUnavailableError
from run_log.stores import RunLog, create_run_log_service

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
