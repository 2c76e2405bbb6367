"""Reading the run log from code whose event loop, if it runs in one, is somebody else's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from run_log.core import Settings
from run_log.stores import create_run_log_service, get_run_log_service

from ._failure import name_and_text

_T = TypeVar("_T")


def is_in_loop() -> bool:
    """Return whether this code runs in an event loop, which must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def read_run_log(ask: Callable[[Any], Awaitable[_T]]) -> _T:
    """Return what *ask* returns for the run log of ``RUN_LOG_BACKEND``. Connecting blocks the loop."""
    settings = Settings.from_env()
    if settings.backend == "memory":
        return await ask(get_run_log_service())
    # Not the process's service, which may be bound to another event loop. With pubsub the projection in
    # Firestore is read; a pubsub service would make a second emitter.
    own: Any = create_run_log_service("firestore" if settings.backend == "pubsub" else settings.backend)
    try:
        return await ask(own)
    finally:
        await own.close()


def run_aside(read: Callable[[], Coroutine[Any, Any, _T]]) -> Future[_T]:
    """Run *read* in another thread with its own loop: connecting blocks, and this thread may run a loop."""
    future: Future[_T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(asyncio.run(read()))
        except Exception as error:  # noqa: BLE001 - the caller handles it
            future.set_exception(error)
        except BaseException as error:  # noqa: BLE001 - a SystemExit of the reading must not end the workflow
            future.set_exception(RuntimeError(f"reading ended by {name_and_text(error)}"))

    threading.Thread(target=run, name="run-log-resume", daemon=True).start()
    return future
