"""The page about the dashboard says what the dashboard does."""

from __future__ import annotations

import re

from run_log.dashboard.pages import inbox, operations, run, runs, workflow
from run_log.dashboard.pages.filters import FIELDS

from .repository import read

DASHBOARD = read("docs/dashboard.md")


def test_pages() -> None:
    """Each page of the table is one that there is."""
    pages = re.findall(r"^\| `(/[^`]*)` \|", DASHBOARD, re.MULTILINE)

    assert 5 == len(pages)
    served = [route for page in (inbox, operations, run, runs, workflow) for route in page.router.routes]
    assert sorted(pages) == sorted(getattr(route, "path", "") for route in served)


def test_filters() -> None:
    """The table of parameters has every filter, and nothing else."""
    _, _, finding = DASHBOARD.partition("## Finding runs")
    rows = re.findall(r"^\| (`[^|]*`) \|", finding.partition("##")[0], re.MULTILINE)

    assert set(FIELDS) == {name for row in rows for name in re.findall(r"`(\w+)`", row)}
