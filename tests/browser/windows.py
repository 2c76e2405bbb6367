"""A window of the browser in which nothing may go wrong unseen."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import AsyncGenerator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, expect

from run_log.dashboard.paths import segment_of

from .site import Site

expect.set_options(timeout=15_000)  # a busy machine takes its time

_STANDARDS: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


class Look(TypedDict, total=False):
    """How a window looks at a page; the names are Playwright's."""

    color_scheme: Any
    java_script_enabled: bool
    timezone_id: str
    viewport: Any
    reduced_motion: Any
    permissions: list[str]


class Window:
    """A page of a browser, and what went wrong in it."""

    def __init__(self, page: Page, site: Site) -> None:
        self.page = page
        self._site = site
        self._faults: list[str] = []
        self._expected: list[re.Pattern[str]] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._faults.append(f"error: {error}"))
        page.on("request", self._asked)

    @property
    def rows(self) -> Locator:
        """The rows of runs."""
        return self.page.locator("tbody tr")

    @property
    def connection(self) -> Locator:
        """What says whether the page is live."""
        return self.page.locator("#connection")

    def row(self, run_id: str, workflow_id: str = "workflow-1") -> Locator:
        """Return the row of a run."""
        name = f"run/{segment_of(workflow_id)}/{segment_of(run_id)}"
        return self.page.locator(f'[id="{name}"]')

    async def hide(self) -> None:
        """Have the page be one that nobody sees, as another tab in front of it would."""
        await self._set_hidden(is_hidden=True)

    async def show(self) -> None:
        """Undo `hide`."""
        await self._set_hidden(is_hidden=False)

    async def _set_hidden(self, *, is_hidden: bool) -> None:
        # A browser without a window shows every tab.
        await self.page.evaluate(
            """hidden => {
                Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            is_hidden,
        )

    async def open(self, path: str) -> None:
        """Open a path of the dashboard."""
        await self.page.goto(self._site.root + path)

    def expects(self, pattern: str) -> None:
        """Have what matches *pattern* on the console be no fault: the journey is about it."""
        self._expected.append(re.compile(pattern))

    @property
    def faults(self) -> list[str]:
        """What was wrong: errors, violations of the policy, requests to another origin."""
        return [one for one in self._faults if not any(each.search(one) for each in self._expected)]

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._faults.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self._site.origin + "/", "data:")):
            self._faults.append(f"asked another origin: {request.url}")


class Opening:
    """Opens windows on a site, none of which shares anything with another."""

    def __init__(self, browser: Browser, site: Site, until_the_end: contextlib.AsyncExitStack) -> None:
        self._browser = browser
        self._site = site
        self._until_the_end = until_the_end
        self.windows: list[Window] = []

    async def __call__(self, path: str = "/", *, expected: str = "", **look: Unpack[Look]) -> Window:
        """Return a window that shows *path*. See `Window.expects` for what is *expected*."""
        context = await self._browser.new_context(**look)
        self._until_the_end.push_async_callback(context.close)
        window = Window(await context.new_page(), self._site)
        self.windows.append(window)
        if expected:
            window.expects(expected)
        await window.open(path)
        return window


@contextlib.asynccontextmanager
async def opening(browser: Browser, site: Site) -> AsyncGenerator[Opening]:
    """Yield what opens windows. Where the block ends, nothing may have gone wrong in any of them.

    Raises:
        AssertionError: Something has.
    """
    async with contextlib.AsyncExitStack() as until_the_end:
        opened = Opening(browser, site, until_the_end)
        yield opened
        faults = [fault for window in opened.windows for fault in window.faults]
        if faults:
            raise AssertionError("\n".join(faults))


async def axe_findings(page: Page) -> list[str]:
    """Return what axe-core finds wrong with what *page* shows: the rule, and the first place."""
    await page.evaluate(_axe())
    options = {"resultTypes": ["violations"], "runOnly": _STANDARDS}
    found: dict[str, Any] = await page.evaluate(f"axe.run({json.dumps(options)})")
    return [
        f"{one['id']}: {one['help']}: {node['html'][:200]}: {node.get('failureSummary', '')[:300]}"
        for one in found["violations"]
        for node in one["nodes"][:3]
    ]


@functools.cache
def _axe() -> str:
    # The package is not typed. Of it only the script is needed.
    package = find_spec("axe_playwright_python")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).with_name("axe.min.js").read_text(encoding="utf-8")
