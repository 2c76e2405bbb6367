"""What people see while runs go on."""

from __future__ import annotations

from playwright.async_api import expect

from run_log.core import RunStatus
from run_log.stores import RunLog
from run_log.testing import a_run

from .conftest import Opening


async def test_a_run_appears_while_one_looks(log: RunLog, opened: Opening) -> None:
    """A run that begins is put first on the open page, and what was there stays."""
    await log.save_run(a_run(id="earlier"))
    window = await opened("/")
    await expect(window.rows).to_have_count(1)

    await log.save_run(a_run(id="later", status=RunStatus.RUNNING))

    await expect(window.rows).to_contain_text(["later", "earlier"])
