"""What people see while runs go on."""

from __future__ import annotations

from playwright.async_api import expect

from run_log.stores import RunLog
from run_log.testing import a_run

from .conftest import Opening


async def test_the_page_lists_what_is_there(log: RunLog, opened: Opening) -> None:
    """A run that is stored is a row of the page."""
    await log.save_run(a_run(id="r1"))

    window = await opened("/")

    await expect(window.page.locator("tbody tr")).to_have_count(1)
