"""What holds of every page: nothing is in the way of anybody, in the light, in the dark, on a telephone."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect
from tests.pictures import NOW, present, tell

from run_log.console.work.sample_past import past
from run_log.dashboard import create_app
from run_log.stores import SQLiteRunLogService

from .site import Site
from .windows import Opening, axe_findings, opening

PAGES: Final = {
    "runs": "/",
    "filtered": "/?status=failed&label=region%3Deu&within=30d&trigger=scheduled",
    "nothing": "/?label=region%3Dnowhere",
    "wrong": "/?since=yesterday",
    "run": "/workflows/invoices~2Fsync/runs/20260616-100358-5e21",
    "payloads": "/workflows/invoices~2Fsync/runs/20260616-100358-5e21?payloads=1",
    "running": "/workflows/invoices~2Fsync/runs/20260616-100421-0c7d",
    "workflow": "/workflows/invoices~2Fsync",
    "inbox": "/inbox",
    "operations": "/operations",
    "missing": "/workflows/nothing/runs/nowhere",
}
_FAULTY: Final = "the server responded with a status of 40[04]"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sample_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Return the dashboard of the sample workflows, at a moment of theirs."""
    log = SQLiteRunLogService(path=tmp_path_factory.mktemp("samples") / "runs.sqlite3", now=lambda: NOW)
    await log.apply([*past(NOW - timedelta(minutes=9), random.Random(4), days=9), *present()])
    await tell(log)
    async with Site(create_app(log, now=lambda: NOW)) as served:
        yield served
    await log.close()


@pytest_asyncio.fixture(loop_scope="session")
async def sampled(browser: Browser, sample_site: Site) -> AsyncIterator[Opening]:
    """Return what opens a window at a path of it; at the end, nothing may have gone wrong in any."""
    async with opening(browser, sample_site) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
async def test_axe_finds_nothing(sampled: Opening, name: str, scheme: str) -> None:
    """axe-core finds nothing on any page, in neither color scheme, with every part of it opened."""
    window = await sampled(PAGES[name], color_scheme=scheme, expected=_FAULTY)
    await window.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")

    assert [] == await axe_findings(window.page)


@pytest.mark.parametrize("name", PAGES)
async def test_a_telephone_needs_no_scrolling_sideways(sampled: Opening, name: str) -> None:
    """On 400 pixels every page fits in its width, with every part of it opened."""
    window = await sampled(PAGES[name], viewport={"width": 400, "height": 800}, expected=_FAULTY)
    await window.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")

    await expect(window.page.locator("main")).to_be_visible()
    wide = await window.page.evaluate(
        """[...document.querySelectorAll("body *")]
            .filter(one => one.getBoundingClientRect().right > innerWidth + 1
                && !one.closest("pre, .skip, table:not(.days) thead")
                && getComputedStyle(one).position !== "absolute")
            .map(one => one.outerHTML.slice(0, 100))"""
    )
    assert [] == wide
    assert not await window.page.evaluate("document.documentElement.scrollWidth > innerWidth")
