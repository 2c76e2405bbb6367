"""Every test of this folder that asks for `api` runs over each embedded store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from run_log.stores import InMemoryRunLogService, RunLogService, SQLiteRunLogService

from .api import Api, opened_api

Opener = Callable[[Path], RunLogService]


def _memory(folder: Path) -> RunLogService:
    del folder
    return InMemoryRunLogService()


def _sqlite(folder: Path) -> RunLogService:
    return SQLiteRunLogService(path=folder / "runs.sqlite3")


@pytest.fixture(params=[pytest.param(_memory, id="memory"), pytest.param(_sqlite, id="sqlite")])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunLogService]:
    """Yield one run log of each kind, empty."""
    opener: Opener = request.param
    found = opener(tmp_path)
    yield found
    await found.close()


@pytest.fixture
async def api(log: RunLogService) -> AsyncIterator[Api]:
    """Yield the API of a run log of each kind."""
    async with opened_api(log) as found:
        yield found
