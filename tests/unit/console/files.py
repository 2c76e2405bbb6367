"""Runs in a file, as another process leaves and finds them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from run_log.stores import SQLiteRunLogService

_T = TypeVar("_T")


def in_file(path: Path, ask: Callable[[SQLiteRunLogService], Awaitable[_T]]) -> _T:
    """Return what the run log in the file at *path* answers; it is made where it is not there."""

    async def answered() -> _T:
        log = SQLiteRunLogService(path=path)
        try:
            return await ask(log)
        finally:
            await log.close()

    return asyncio.run(answered())
