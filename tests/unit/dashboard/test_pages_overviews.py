"""The pages of a workflow and of operations: what they tell at a glance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from run_log.core import RunStatus
from run_log.stores import InMemoryRunLogService, RunLogService
from run_log.testing import a_run, an_event

from .site import NOON, Site, opened_site

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
async def site(log: RunLogService) -> AsyncIterator[Site]:
    """Yield the pages of a run log of each kind."""
    async with opened_site(log) as found:
        yield found


async def test_a_workflow_at_a_glance(site: Site) -> None:
    """The page has counts, success rate, percentiles, the last runs, and when the workflow was heard of."""
    for number in range(4):
        status = RunStatus.SUCCESS if number else RunStatus.FAILED
        await site.log.save_run(
            a_run(id=f"r/{number}", workflow_id="w", status=status, started_at=NOON + number * SECOND)
        )

    page = await site.get("/workflows/w")

    facts = dict(
        zip(
            [node.text for node in page.one("dl", "facts").all("dt")],
            page.one("dl", "facts").all("dd"),
            strict=True,
        )
    )
    assert "75.0%" == facts["Success rate"].text
    assert "1.4 s" == facts["p95"].text
    assert "03-04 12:00:03" == facts["Last run"].text
    assert "/workflows/w/runs/r~2F0?workflow=w" == facts["Last failure"].link("03-04 12:00:00")
    assert facts["Last heard of"].all("time")
    tabs = page.one("nav", "tabs")
    assert ["All 4", "success 3", "failed 1"] == [tab.text for tab in tabs.all("a")]
    assert "/?workflow=w&status=failed" == tabs.link("failed 1")


async def test_strip(site: Site) -> None:
    """The strip has the last 50 runs, the oldest first, each a link, as high as it took long."""
    for number in range(55):
        run = a_run(id=str(number), workflow_id="w", started_at=NOON + number * SECOND)
        run.duration_ms = 100.0 * (number + 1)
        await site.log.save_run(run)

    links = (await site.get("/workflows/w")).one("ol", "strip").all("a")

    assert [f"/workflows/w/runs/{number}?workflow=w" for number in range(5, 55)] == [
        link.attributes["href"] for link in links
    ]
    assert "54: success, 03-04 12:00 UTC, 5.5 s" == links[-1].attributes["title"]
    assert "54: success" == links[-1].one("svg", role="img").attributes["aria-label"]
    heights = [float(link.one("rect").attributes["height"].rstrip("%")) for link in links]
    assert sorted(heights) == heights
    assert 100 == heights[-1]


async def test_days() -> None:
    """Each of the last 90 days has a bar of its runs by how they ended, and a line in the table behind."""
    # A store drops the counts of days that are long past by its own clock.
    log = InMemoryRunLogService(now=lambda: NOON)
    for number, (day, status) in enumerate(
        [(0, "success"), (0, "failed"), (0, "skipped"), (0, "success"), (89, "failed"), (95, "failed")]
    ):
        run = a_run(id=str(number), workflow_id="w", status=RunStatus(status), started_at=NOON - day * DAY)
        await log.save_run(run)

    async with opened_site(log) as site:
        page = await site.get("/workflows/w")

    bars = page.one("svg", "days").all("rect")
    assert [("b-failed", "25.0%"), ("b-failed", "25.0%"), ("b-success", "50.0%"), ("b-other", "25.0%")] == [
        (bar.attributes["class"], bar.attributes["height"]) for bar in bars
    ]
    assert "2026-03-04: 1 failed, 2 success, 1 other" == bars[-1].one("title").text
    assert [
        ["2026-03-04", "4", "2", "1", "1.4 s", "1.4 s"],
        ["2025-12-05", "1", "0", "1", "1.4 s", "1.4 s"],
    ] == page.table("days")


async def test_failures_in_groups(site: Site) -> None:
    """Failures of one kind are one line, with how many, the newest, and the list of all."""
    for number in range(3):
        run = a_run(
            id=f"r{number}",
            workflow_id="w",
            status=RunStatus.FAILED,
            error=f"row {number} is bad",
            error_type="app.Bad",
            started_at=NOON + number * SECOND,
        )
        await site.log.save_run(run)

    page = await site.get("/workflows/w")

    assert [["3", "row # is bad", "app.Bad", "r2", "03-04 12:00:02"]] == page.table("groups")
    assert "/?workflow=w&error_type=app.Bad" == page.link("app.Bad")
    assert "/workflows/w/runs/r2?workflow=w" == page.link("r2")


async def test_a_workflow_whose_runs_all_go_on(site: Site) -> None:
    """Where nothing has ended, nothing is made up."""
    await site.log.save_run(a_run(workflow_id="w", status=RunStatus.RUNNING, started_at=NOON - SECOND))

    page = await site.get("/workflows/w")

    assert "none ended" in page.text
    assert "No run of it has failed." in page.text


async def test_silent_runs(site: Site) -> None:
    """Runs under way that are silent are shown, the longest first, with the command to sweep them."""
    for name, hours, status in (
        ("a", 2, "running"),
        ("b", 30, "pending"),
        ("c", 0.5, "running"),
        ("d", 9, "paused"),
    ):
        at = NOON - timedelta(hours=hours)
        run = a_run(id=name, workflow_id="w", status=RunStatus(status), started_at=at)
        await site.log.apply([an_event(run, occurred_at=at)])

    page = await site.get("/operations")
    shorter = await site.get("/operations?older_than=10m")
    none = await site.get("/operations?older_than=9d")

    assert [
        ["pending", "b", "w", "1 d 6 h", "03-03 06:00:00"],
        ["running", "a", "w", "2 h 0 m", "03-04 10:00:00"],
    ] == page.table("stale")
    assert ["b", "a", "c"] == [row[1] for row in shorter.table("stale")]
    assert "run-log sweep --older-than 10m --mark" in [node.text for node in shorter.all("code")]
    assert "No run that is under way has been silent for so long." in none.text


async def test_how_far_the_log_is(site: Site) -> None:
    """Each workflow tells until when its events are in the counts, and how long ago that is."""
    at = NOON - timedelta(minutes=3)
    await site.log.apply(
        [an_event(a_run(workflow_id="w", status=RunStatus.RUNNING, started_at=at), occurred_at=at)]
    )

    page = await site.get("/operations")

    assert [["w", "3 m 0 s", "03-04 11:57:00", "1", "1", "", ""]] == page.table("progress")


async def test_commands(site: Site) -> None:
    """What is done on the command line is there to be copied, and nothing else is claimed."""
    page = await site.get("/operations")

    commands = [node.attributes["data-copy"] for node in page.all("button") if "data-copy" in node.attributes]
    assert [
        "run-log sweep --older-than 1h --mark",
        "run-log emit hello --status success",
        "run-log verify",
        "run-log dead-letters list",
        "run-log dead-letters redrive --all --dry-run",
        "run-log doctor",
    ] == commands


@pytest.mark.parametrize("query", ["older_than=soon", "page_token=x"])
async def test_what_operations_cannot_use(site: Site, query: str) -> None:
    """What cannot be used is told in words, and no command is made of it."""
    page = await site.get(f"/operations?{query}", 400)

    assert page.one(role="alert").text
    assert "run-log sweep --older-than 1h --mark" in [node.text for node in page.all("code")]


async def test_pages_of_workflows(site: Site) -> None:
    """All workflows are reached, page after page."""
    for number in range(101):
        await site.log.save_run(a_run(workflow_id=f"w{number:03}"))

    first = await site.get("/operations")
    second = await site.get(first.link("More"))

    assert 100 == len(first.table("progress"))
    assert ["w100"] == [row[0] for row in second.table("progress")]
    assert "/operations" == second.link("First")
