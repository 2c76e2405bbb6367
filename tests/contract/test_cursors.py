"""Cursors that somebody forged."""

from __future__ import annotations

from tests.fuzz.cursors import fill, listings, run_cursors

from run_log.stores import RunLog

from .harness import Harness

CURSORS = 300


async def test_a_forged_cursor_leads_nowhere_else(harness: Harness, service: RunLog) -> None:
    """A cursor that somebody altered, or made anew, leads to a page of its listing or is refused as one."""
    await fill(harness.store)
    await harness.settle()
    among = await listings(service, watch=True)

    await run_cursors(range(CURSORS), seed=1, among=among)
