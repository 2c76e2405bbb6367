"""The pages of a workflow and of operations: what they tell at a glance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, NoReturn

import pytest
from tests.unit.producer.transports import logged
from typing_extensions import override

from run_log.core import ConfigurationError, RunStatus
from run_log.stores import InMemoryRunLogService, RunLogService
from run_log.stores.notices import MAX_DEAD_LETTERS, DeadLetterNotice, Notice, NoticeKind, VerifyNotice
from run_log.testing import a_run, an_event

from .site import NOON, Node, Site, opened_site

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

    commands = commands_of(page)
    assert [
        "run-log sweep --older-than 1h --mark",
        "run-log verify --record",
        "run-log emit hello --status success",
        "run-log doctor",
    ] == commands


def commands_of(page: Node) -> list[str]:
    """Return the commands that a page shows to copy."""
    return [node.attributes["data-copy"] for node in page.all("button") if "data-copy" in node.attributes]


def letter(at: datetime, reason: str, error: str = "why", **run: str | None) -> DeadLetterNotice:
    """Return the notice of a dead letter."""
    told: dict[str, Any] = {"workflow_id": None, "run_id": None, "message_id": "1", **run}
    return DeadLetterNotice(at=at, reason=reason, error=error, **told)


async def tell(log: RunLogService, *letters: DeadLetterNotice) -> None:
    """Have projectors tell of dead letters."""
    # None expires: these stores go by the machine's clock.
    notices = [
        Notice(key=str(number), at=one.at, text=one.model_dump_json()) for number, one in enumerate(letters)
    ]
    await log.put_notices(NoticeKind.DEAD_LETTER, notices)


async def test_dead_letters(site: Site) -> None:
    """Dead letters are shown by reason: how many, the newest with its run, and what re-drives them."""
    of_run = {"workflow_id": "w/1", "run_id": "r 1"}
    await tell(
        site.log,
        letter(NOON - 3 * DAY, "undecodable", "older"),
        letter(NOON - 2 * SECOND, "write_refused", "no such status", **of_run),
        *(letter(NOON - number * DAY / 24, "undecodable", f"error {number}") for number in (2, 1)),
    )

    page = await site.get("/operations")

    assert [
        ["write_refused", "1", "no such status", "r 1", "2.0 s", "03-04 11:59:58"],
        ["undecodable", "3", "error 1", "not known", "1 h 0 m", "03-04 11:00:00"],
    ] == page.table("letters")
    assert "/workflows/w~2F1/runs/r~201" == page.link("r 1")
    assert [
        "run-log dead-letters redrive --reason write_refused",
        "run-log dead-letters redrive --reason undecodable",
        "run-log dead-letters list",
    ] == commands_of(page)[1:4]
    assert "Of the newest" not in page.one("table", "letters").text


async def test_a_reason_of_somebody_else(site: Site) -> None:
    """No command is made of what others write as a reason: somebody would run it."""
    await tell(site.log, letter(NOON - SECOND, "x; rm -rf ~"), letter(NOON - SECOND, "expired"))

    page = await site.get("/operations")

    assert {"x; rm -rf ~", "expired"} == {row[0] for row in page.table("letters")}
    assert ["run-log dead-letters redrive --reason expired"] == [
        command for command in commands_of(page) if "redrive" in command
    ]


async def test_more_dead_letters_than_are_read(site: Site) -> None:
    """Where there are more than are read, the page says that the numbers are of the newest."""
    await tell(site.log, *(letter(NOON - SECOND, "undecodable") for _ in range(MAX_DEAD_LETTERS + 1)))

    page = await site.get("/operations")

    assert ["undecodable", "500"] == page.table("letters")[0][:2]
    assert "Of the newest 500." in page.one("table", "letters").text


async def test_no_dead_letters() -> None:
    """Where projectors write the page says that none was told of, and elsewhere that there are none."""

    class Projected(InMemoryRunLogService):
        is_projected = True

    async with opened_site(Projected()) as site:
        projected = await site.get("/operations")
    async with opened_site(InMemoryRunLogService()) as site:
        embedded = await site.get("/operations")

    assert "Projectors have told of none in the last seven days." in projected.text
    assert "run-log dead-letters list" in commands_of(projected)
    assert "There are none without Pub/Sub" in embedded.text
    assert "run-log dead-letters list" not in commands_of(embedded)


async def test_notices_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    """The page says that notices cannot be read, by an account that may not, and shows the rest."""

    class Denied(InMemoryRunLogService):
        @override
        async def read_notices(self, kind: NoticeKind, most: int) -> NoReturn:
            raise ConfigurationError("Firestore denies access")

    async with opened_site(Denied()) as site:
        page = await site.get("/operations")

    assert "The notices of dead letters cannot be read" in page.text
    assert "What a recount has kept cannot be read" in page.text
    assert "No run that is under way has been silent for so long." in page.text
    assert "Firestore denies access" == logged(caplog, "run_log_notices_not_read")[0]["error"]


async def recounted(log: RunLogService, **found: Any) -> Node:
    """Return the page once a recount is kept, three hours after it."""
    told: dict[str, Any] = {"workflow_id": None, "workflows": 12, "runs": 3_400, "repaired": 0}
    told |= {"differing": 0, "first": (), **found}
    notice = VerifyNotice(at=NOON - DAY / 8, **told)
    await log.put_notices(NoticeKind.VERIFICATION, [notice.stored()])
    async with opened_site(log) as site:
        return await site.get("/operations")


async def test_a_recount(log: RunLogService) -> None:
    """The page says when the last recount that was kept looked at how much, and that nothing differs."""
    page = await recounted(log)

    section = page.one("section", aria_labelledby="verified-title")
    assert (
        "03-04 09:00:00 UTC, 3 h 0 m ago: 3,400 runs of 12 workflows were recounted. Nothing differs."
        in section.text
    )
    assert ["run-log verify --record"] == commands_of(section)


async def test_a_recount_that_found_something(log: RunLogService) -> None:
    """Workflows that differ are named, with a link each, and with the command that corrects them."""
    page = await recounted(log, differing=3, repaired=1, first=("w/1", "v"))

    section = page.one("section", aria_labelledby="verified-title")
    assert "The counts of 1 were corrected." in section.text
    assert "Workflows that differ: 3" == section.one("p", "fault").text
    assert ("/workflows/w~2F1", "/workflows/v") == (section.link("w/1"), section.link("v"))
    assert "and others" in section.text
    assert ["run-log verify", "run-log verify --repair --record"] == commands_of(section)


async def test_a_recount_of_one_workflow(log: RunLogService) -> None:
    """The recount of one workflow does not look like one of all."""
    page = await recounted(log, workflow_id="w/1", workflows=1)

    section = page.one("section", aria_labelledby="verified-title")
    assert "3,400 runs of w/1 were recounted." in section.text
    assert "/workflows/w~2F1" == section.link("w/1")


async def test_a_page_of_workflows_that_is_not_there(site: Site) -> None:
    """The rest of the page is there all the same."""
    await tell(site.log, letter(NOON - SECOND, "expired"))

    page = await site.get("/operations?page_token=x", 400)

    assert ["expired", "1"] == page.table("letters")[0][:2]


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
