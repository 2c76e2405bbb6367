"""The list of runs: what it shows, how its address narrows it, and what it costs."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typing_extensions import override

from run_log.core import RunProgress, RunRef, RunStatus, WorkflowRun
from run_log.core.protocol import MAX_LIMIT
from run_log.dashboard import create_app
from run_log.dashboard.pages.filters import Filter
from run_log.dashboard.pages.rows import MAX_CHIPS, Row
from run_log.stores import InMemoryRunLogService, RunLogService
from run_log.stores.listings import Position, Selection
from run_log.stores.stored.reading import Page
from run_log.testing import a_run, an_event

from .site import BASE, NOON, Node, Site, opened_site

MINUTE = timedelta(minutes=1)
STATIC = Path(__file__).parents[3] / "dashboard/run_log/dashboard/static"


@pytest.fixture
async def site(log: RunLogService) -> AsyncIterator[Site]:
    """Yield the pages of a run log of each kind."""
    async with opened_site(log) as found:
        yield found


async def fill(log: RunLogService, *runs: WorkflowRun) -> None:
    """Save *runs*."""
    for run in runs:
        await log.save_run(run)


def ids_of(page: Node) -> list[str]:
    """Return the ids of the runs that a list shows, in order."""
    return [cell.text for cell in page.all("th", "r")]


async def test_rows(site: Site) -> None:
    """A row tells of a run what people look for: its state, itself, when, how long, and what happened."""
    ended = a_run(
        id="r/1", workflow_id="bills", status=RunStatus.FAILED, error="\n boom: 7\nat line 3", started_at=NOON
    )
    going = a_run(id="r2", workflow_id="bills", status=RunStatus.RUNNING, started_at=NOON - 133 * MINUTE / 60)
    going.progress = RunProgress(fraction=0.4, text="3 of 7 files")
    await fill(site.log, ended, going)

    page = await site.get("/")

    assert ["r/1", "r2"] == ids_of(page)
    first, second = page.one("tbody").all("tr")
    assert ["failed", "r/1", "bills", "03-04 12:00:00", "1.5 s", "boom: 7", ""] == [
        cell.text for cell in first.within if isinstance(cell, Node)
    ]
    assert "run/bills/r~2F1" == first.attributes["id"]
    assert "/workflows/bills/runs/r~2F1" == first.link("r/1")
    assert "2026-03-04T12:00:00Z" == first.one("time").attributes["datetime"]
    assert "2 m 13 s" == second.one("span", data_since="2026-03-04T11:57:47Z").text
    assert ("0.4", "40 %") == (second.one("progress").attributes["value"], second.one("progress").text)
    assert second.one("td", "n").text.endswith("3 of 7 files")


async def test_a_row_alone(site: Site) -> None:
    """A row that a stream sends is the very one of the page, with the list's filters in its links."""
    run = a_run(started_at=NOON, labels={"team": "a"})
    await fill(site.log, run)
    shown = Filter.of([("label", "team=a")], NOON)

    response = await site.client.get("/?label=team=a")

    assert Row(run, shown, root="", now=NOON).html in response.text
    assert "/workflows/workflow-1/runs/run-1?label=team=a" in response.text


async def test_status_is_never_told_by_colour_alone(site: Site) -> None:
    """A state has an icon, which is for the eye alone, and a word."""
    await fill(site.log, *(a_run(id=status, status=status) for status in RunStatus))

    page = await site.get("/")

    symbols = {node.attributes["id"] for node in page.all("symbol")}
    for cell in page.all("td", "s"):
        icon = cell.one("svg")
        assert "true" == icon.attributes["aria-hidden"]
        assert f"#{cell.text}" == icon.one("use").attributes["href"]
        assert cell.text in symbols
    assert set(RunStatus) == {cell.text for cell in page.all("td", "s")}


async def test_counts(site: Site) -> None:
    """Tabs count the runs of all time, as stores keep them, and keep the other filters."""
    await fill(
        site.log,
        a_run(id="1", labels={"team": "a"}),
        a_run(id="2", status=RunStatus.FAILED),
        a_run(id="3", workflow_id="other", status=RunStatus.FAILED),
    )

    everything = (await site.get("/")).one("nav", "tabs")
    one = (await site.get("/?workflow=other&label=team=a")).one("nav", "tabs")

    assert ["All 3", "running 0", "paused 0", "failed 2", "success 1"] == [
        tab.text for tab in everything.all("a")
    ][:5]
    assert ["All 1", "running 0", "paused 0", "failed 1", "success 0"] == [tab.text for tab in one.all("a")][
        :5
    ]
    assert "/?workflow=other&label=team=a&status=failed" == one.link("failed 1")
    assert "All 3" == everything.one("a", aria_current="page").text


async def test_counts_of_very_many_workflows() -> None:
    """Where not all workflows are read, no count is claimed."""
    log = InMemoryRunLogService()
    await log.apply([an_event(a_run(workflow_id=str(number))) for number in range(MAX_LIMIT + 1)])

    async with opened_site(log) as site:
        tabs = (await site.get("/")).one("nav", "tabs")

    assert ["All", "running"] == [tab.text for tab in tabs.all("a")][:2]


FILTERED = (
    a_run(id="1", started_at=NOON - 60 * MINUTE, labels={"team": "a", "day": "mon"}),
    a_run(id="2", started_at=NOON - 50 * MINUTE, status=RunStatus.FAILED, error_type="app.Lost"),
    a_run(id="3", started_at=NOON - 40 * MINUTE, trigger_type="cron", labels={"team": "a"}),
    a_run(id="4", started_at=NOON - 30 * MINUTE, parent=RunRef("workflow-1", "a/b")),
    a_run(id="5", started_at=NOON - 20 * MINUTE, workflow_id="w&x=y", status=RunStatus.RUNNING),
)


EXPECTED: Final[dict[str, list[str]]] = {
    "": ["5", "4", "3", "2", "1"],
    "status=failed": ["2"],
    "status=failed&status=running": ["5", "2"],
    "label=team=a": ["3", "1"],
    "label=team=a&label=day=mon": ["1"],
    "label=team%3Da": ["3", "1"],
    "trigger=cron": ["3"],
    "error_type=app.Lost": ["2"],
    "within=45m": ["5", "4", "3"],
    "since=45m&until=25m": ["4", "3"],
    "within=45m&since=1h": ["5", "4", "3"],
    "since=2026-03-04T11:30": ["5", "4"],
    "parent=workflow-1/a~2Fb": ["4"],
    "workflow=w%26x%3Dy": ["5"],
    "status=success&workflow=workflow-1&trigger=manual&within=2h": ["4", "1"],
}
"""The runs that each address lists."""


async def test_filters(site: Site) -> None:
    """The address narrows the list; the form has what was asked for, so that it can be asked for again."""
    await fill(site.log, *FILTERED)

    for query, expected in EXPECTED.items():
        page = await site.get(f"/?{query}")

        assert expected == ids_of(page), query
        asked = {pair for pair in parse_qsl(query) if pair[0] != "page_token"}
        assert asked <= set(fields_of(page.one("form", role="search"))), query


@pytest.mark.parametrize(
    ("asked", "led_to"),
    [
        ("?workflow=&status=failed&label=team=a&since=&page_token=", "?status=failed&label=team=a"),
        ("?status=&page_token=abc", "?page_token=abc"),
        ("?status=", ""),
    ],
)
async def test_what_a_form_leaves_empty(asked: str, led_to: str, site: Site) -> None:
    """An address that a form made leads to the one that has only what was filled in, of the same page."""
    answer = await site.client.get(f"/{asked}")

    assert (303, f"/{led_to}") == (answer.status_code, answer.headers["location"])


def test_what_a_filter_wants() -> None:
    """A filter wants the very runs that its list has: rows that change come or go by it."""
    for query, expected in EXPECTED.items():
        wanted = [run.id for run in FILTERED if Filter.of(parse_qsl(query), NOON).wants(run)]

        assert sorted(expected) == wanted, query


async def test_bad_filters(site: Site) -> None:
    """All that is wrong is told at once, each at its field, which keeps what was typed; nothing is listed."""
    await fill(site.log, a_run())
    query = "status=lost&label=x&trigger=A+b&since=yesterday&until=x&within=soon&parent=x&workflow=w"

    page = await site.get(f"/?{query}", 400)

    form = page.one("form", role="search")
    assert [] == ids_of(page)
    assert set(parse_qsl(query)) <= set(fields_of(form))
    wrong = {node.attributes["name"] for node in form.all(aria_invalid="true")}
    assert {"label", "trigger", "since", "until", "within", "parent"} == wrong
    told = [node.text for node in form.all("span", "fault")]
    assert 7 == len(told)
    assert any("pass one of pending, running, success" in text for text in told)
    for node in form.all(aria_invalid="true"):
        page.one(id=node.attributes["aria-describedby"])


async def test_pages(site: Site) -> None:
    """A walk over pages has every run once, though time goes on, and comes back to the newest."""
    names = [str(number) for number in range(120, 0, -1)]
    begun = {name: NOON - timedelta(seconds=121 - int(name)) for name in names}
    await fill(site.log, *(a_run(id=name, started_at=begun[name]) for name in names))
    moments = iter([NOON + MINUTE * number for number in range(10)])

    async with opened_site(site.log, now=lambda: next(moments)) as later:
        first = await later.get("/?within=1h&workflow=workflow-1")
        second = await later.get(first.link("Older"))
        third = await later.get(second.link("Older"))

    assert names == [*ids_of(first), *ids_of(second), *ids_of(third)]
    assert "/?workflow=workflow-1" in third.link("Newest")
    assert not [node for node in third.all("a") if node.text == "Older"]
    assert not [node for node in first.all("a") if node.text == "Newest"]


@pytest.mark.parametrize("token", ["x", "AAAA"])
async def test_a_page_that_is_not_there(site: Site, token: str) -> None:
    """A token of another list is refused in words, with a way back."""
    page = await site.get(f"/?page_token={token}", 400)

    assert "Begin with the newest" in page.one(role="alert").text
    assert "/" == page.link("Newest")


async def test_nothing_yet(site: Site) -> None:
    """An empty log shows the command that fills it; a filter that finds nothing does not."""
    empty = await site.get("/")
    await fill(site.log, a_run())
    none = await site.get("/?status=failed")

    assert "run-log emit hello --status success" == empty.one("code").text
    assert not none.all("code")
    assert "/" == none.link("Show all runs")


async def test_labels(site: Site) -> None:
    """Labels are links that narrow the list further; of many, a row shows the first and how many more."""
    labels = {f"k{number}": "v=1 &" for number in range(MAX_CHIPS + 2)}
    await fill(site.log, a_run(labels=labels))

    chips = (await site.get("/?label=k3=v%3D1+%26")).one("td", "l")

    assert MAX_CHIPS == len(chips.all("a"))
    assert "+2" == chips.one("i").text
    assert ["k0=v=1 &"] == [chips.all("a")[0].text]
    narrowed = await site.get(chips.all("a")[0].attributes["href"])
    assert ["run-1"] == ids_of(narrowed)
    assert 2 == len(narrowed.all("input", name_="label"))


def fields_of(form: Node) -> list[tuple[str, str]]:
    """Return what a browser sends of a form."""
    found = [
        (node.attributes["name"], node.attributes.get("value", ""))
        for node in form.all("input")
        if "name" in node.attributes and node.attributes.get("type") != "checkbox"
    ]
    for select in form.all("select"):
        chosen = [option for option in select.all("option") if "selected" in option.attributes]
        option = chosen[0] if chosen else select.all("option")[0]
        found.append((select.attributes["name"], option.attributes.get("value", option.text)))
    return found


async def test_prefix(log: RunLogService) -> None:
    """Mounted under a prefix, every link, form and file of a page is below it."""
    outer = FastAPI()
    outer.mount("/tools/runs", create_app(log, now=lambda: NOON))
    await fill(log, *FILTERED)
    transport = httpx2.ASGITransport(app=outer)

    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
        site = Site(log=log, client=client)
        for path in ("/", "/inbox", "/operations", "/workflows/workflow-1", "/workflows/workflow-1/runs/1"):
            page = await site.get(f"/tools/runs{path}")
            links = [
                node.attributes[name]
                for node in page.all()
                for name in ("href", "action", "src")
                if name in node.attributes
            ]
            assert [] == [link for link in links if not link.startswith(("/tools/runs/", "#"))]
            assert (await client.get(page.one("link", rel="stylesheet").attributes["href"])).is_success


class Noted(InMemoryRunLogService):
    """Notes whether lists read payloads."""

    payloads: bool = False

    @override
    async def read_page(
        self,
        workflow_id: str | None,
        selection: Selection,
        after: Position | None,
        limit: int,
        *,
        payloads: bool,
    ) -> Page:
        self.payloads = self.payloads or payloads
        return await super().read_page(workflow_id, selection, after, limit, payloads=payloads)


async def test_no_page_reads_the_payloads_of_a_list() -> None:
    """Payloads are read for a run that is asked for with them, and never for a list."""
    log = Noted()
    await fill(log, *FILTERED)

    async with opened_site(log) as site:
        for path in ("/", "/workflows/workflow-1", "/operations", "/workflows/workflow-1/runs/1?payloads=1"):
            await site.get(path)

    assert not log.payloads


async def test_queries(spans: InMemorySpanExporter) -> None:
    """No page makes more than three queries, however many runs it shows, and none of them counts runs."""
    log = InMemoryRunLogService()
    await fill(log, *FILTERED)
    for number in range(30):
        await fill(log, a_run(id=f"p{number}", status=RunStatus.PAUSED, started_at=NOON))

    async with opened_site(log) as site:
        await site.get("/")
        for path in ("/", "/inbox", "/operations", "/workflows/workflow-1", "/workflows/workflow-1/runs/1"):
            spans.clear()
            await site.get(path)
            asked = [span.name for span in spans.get_finished_spans() if span.name.startswith("run_log.")]

            assert 1 <= len(asked) <= 3, (path, asked)
            assert "run_log.count" not in asked


async def test_size(site: Site) -> None:
    """A page of 50 runs takes at most 40 kB as it is, and 15 kB on the way with its style and its script."""
    moments: list[datetime] = [NOON - MINUTE * number for number in range(50)]
    labels = {"customer": "initech", "region": "eu-west1"}
    for number, moment in enumerate(moments):
        await site.log.save_run(
            a_run(
                id=f"0198f3c2-7b1e-7d00-a1b2-{number:012}",
                workflow_id="nightly-export",
                started_at=moment,
                labels=labels,
                status=RunStatus.SUCCESS if number % 5 else RunStatus.FAILED,
                error=None if number % 5 else "ConnectionError: db-7.internal:5432 refused the connection",
            )
        )

    response = await site.client.get("/")

    assert "gzip" == response.headers["content-encoding"]
    assert len(response.content) <= 40_000
    files = [response.content, *(path.read_bytes() for path in (STATIC / "style.css", STATIC / "script.js"))]
    assert sum(len(gzip.compress(each, 5)) for each in files) <= 15_000
