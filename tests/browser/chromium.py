"""The machine's own Chromium, driven through Playwright, which downloads none."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from playwright.async_api import Browser, async_playwright

VARIABLE: Final = "RUN_LOG_CHROMIUM"
REQUIRE_VARIABLE: Final = "RUN_LOG_REQUIRE_BROWSER"

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")


class BrowserNotFoundError(Exception):
    """There is no Chromium here."""


def found_chromium(environ: Mapping[str, str] = os.environ) -> str:
    """Return the path of Chromium: the one that `VARIABLE` names, or the first on the ``PATH``.

    Raises:
        BrowserNotFoundError: There is none.
    """
    for name in (environ[VARIABLE],) if environ.get(VARIABLE) else _NAMES:
        if found := shutil.which(name, path=environ.get("PATH", "")):
            return found
    raise BrowserNotFoundError(
        f"no Chromium: install one (Debian: apt-get install chromium), or name it in {VARIABLE}"
    )


def is_required(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a missing Chromium is a failure."""
    return environ.get(REQUIRE_VARIABLE, "").lower() in {"1", "true"}


@contextlib.asynccontextmanager
async def started_chromium(environ: Mapping[str, str] = os.environ) -> AsyncGenerator[Browser]:
    """Yield a browser without a window, which does not outlive the block.

    Raises:
        BrowserNotFoundError: There is none.
    """
    path = found_chromium(environ)
    async with async_playwright() as driver:
        # Chromium refuses to run its sandbox as root.
        browser = await driver.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)
        try:
            yield browser
        finally:
            await browser.close()
