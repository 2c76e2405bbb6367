"""A run log, its dashboard behind a port, and windows of a real browser that look at it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from run_log.dashboard import create_app
from run_log.stores import SQLiteRunLogService

from .chromium import REQUIRE_VARIABLE, BrowserNotFoundError, is_required, started_chromium
from .site import Site
from .windows import Opening, opening

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have all tests of this folder share a loop: a browser belongs to the one that it was started in."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            for mark in (pytest.mark.browser, pytest.mark.process, pytest.mark.asyncio(loop_scope="session")):
                item.add_marker(mark, append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Return the browser, one for each process of the tests."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            started = await stack.enter_async_context(started_chromium())
        except BrowserNotFoundError as error:
            if is_required():
                pytest.fail(f"{error} ({REQUIRE_VARIABLE} is set)", pytrace=False)
            pytest.skip(str(error))
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def log(tmp_path: Path) -> AsyncIterator[SQLiteRunLogService]:
    """Return the run log that the dashboard shows, for the test to write to."""
    service = SQLiteRunLogService(path=tmp_path / "runs.sqlite3")
    yield service
    await service.close()


@pytest_asyncio.fixture(loop_scope="session")
async def site(log: SQLiteRunLogService) -> AsyncIterator[Site]:
    """Return the dashboard, behind a port."""
    async with Site(create_app(log)) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def opened(browser: Browser, site: Site) -> AsyncIterator[Opening]:
    """Return what opens a window at a path; at the end, nothing may have gone wrong in any."""
    async with opening(browser, site) as windows:
        yield windows
