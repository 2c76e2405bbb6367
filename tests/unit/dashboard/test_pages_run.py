"""The page of a run: what it did when, how it ended, and the runs beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from run_log.core import PauseRequest, RunEvent, RunProgress, RunRef, RunStatus, Step, StepStatus
from run_log.core.clock import micros_of
from run_log.stores import RunLogService
from run_log.testing import a_run, an_event

from .site import NOON, Node, Site, opened_site, path_of

SECOND = timedelta(seconds=1)


@pytest.fixture
async def site(log: RunLogService) -> AsyncIterator[Site]:
    """Yield the pages of a run log of each kind."""
    async with opened_site(log) as found:
        yield found


def state(status: RunStatus, second: int, *steps: Step, **fields: Any) -> RunEvent:
    """Return the event that a run has this status so many seconds after noon."""
    known: dict[str, Any] = {"id": "r", "workflow_id": "w", "status": status, "started_at": NOON}
    run = a_run(**{**known, **fields})
    at = NOON + second * SECOND
    return an_event(run, hlc=micros_of(at), occurred_at=at).model_copy(update={"steps": steps})


def step(key: str, begins: float, ends: float | None, status: str = "success", **fields: Any) -> Step:
    """Return a step that lasted from one second after noon to another."""
    return Step(
        key=key,
        name=key,
        status=StepStatus(status),
        started_at=NOON + begins * SECOND,
        ended_at=None if ends is None else NOON + ends * SECOND,
        version=micros_of(NOON + (begins if ends is None else ends) * SECOND),
        **fields,
    )


async def test_facts(site: Site) -> None:
    """The page has what is known of a run, with links to its parent, its children, its labels, its like."""
    run = a_run(
        id="r",
        workflow_id="w",
        status=RunStatus.FAILED,
        started_at=NOON,
        completed_at=NOON + 90 * SECOND,
        duration_ms=90_000,
        attempt=3,
        error="boom\n  at line 7\n",
        error_type="app.Lost",
        labels={"team": "a"},
        parent=RunRef("other", "p/1"),
        trace_id="ab" * 16,
        trigger_type="cron",
    )
    await site.log.save_run(run)

    page = await site.get(path_of(run))

    facts = dict(zip(texts(page.all("dt")[:-5]), texts(page.one("dl", "facts").all("dd")), strict=True))
    assert {
        "Started (UTC)": "2026-03-04 12:00:00",
        "Ended (UTC)": "2026-03-04 12:01:30",
        "Took": "1 m 30 s",
        "Trigger": "cron",
        "Attempt": "3",
        "Started by": "other / p/1",
        "Runs that it started": "List them",
        "Trace": "ab" * 16,
        "Labels": "team=a",
    } == facts
    assert "r" == page.one("h1").text
    assert "failed" == page.one("p", "s").text
    assert "boom\n  at line 7\n" == page.one("pre", "error").raw
    assert "/workflows/other/runs/p~2F1" == page.link("other / p/1")
    assert "/?parent=w/r" == page.link("List them")
    assert "/?label=team=a" == page.link("team=a")
    assert "/?error_type=app.Lost" == page.link("app.Lost")


async def test_trace_link(log: RunLogService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the project is known, the trace is a link to it."""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    run = a_run(trace_id="ab" * 16)
    await log.save_run(run)

    async with opened_site(log) as site:
        link = (await site.get(path_of(run))).link("ab" * 16)

    trace = "ab" * 16
    assert f"https://console.cloud.google.com/traces/explorer;traceId={trace}?project=my-project" == link


def texts(nodes: list[Node]) -> list[str]:
    """Return the texts of *nodes*."""
    return [node.text for node in nodes]


async def test_a_run_that_is_under_way(site: Site) -> None:
    """A run that goes on says how far it is, and since when."""
    run = a_run(status=RunStatus.RUNNING, started_at=NOON - 65 * SECOND)
    run.progress = RunProgress(fraction=0.25, text="1 of 4")
    await site.log.save_run(run)

    page = await site.get(path_of(run))

    head = page.one("div", "head")
    assert "running" in head.text
    assert "1 of 4" in head.text
    assert "0.25" == head.one("progress").attributes["value"]
    assert "1 m 5 s" == page.one("dl", "facts").one("span", data_since="2026-03-04T11:58:55Z").text


async def test_timeline(site: Site) -> None:
    """The timeline has a bar for each state and step, in proportion, those within another below it."""
    await site.log.apply(
        [
            state(RunStatus.RUNNING, 0),
            state(
                RunStatus.FAILED,
                100,
                step("load", 50, 100, "failed", attempt=2, error="no disk"),
                step("fetch", 0, 50, attributes={"rows": 3, "file": "a.csv"}),
                step("part", 10, 20, parent="fetch"),
                completed_at=NOON + 100 * SECOND,
                duration_ms=100_000,
            ),
        ]
    )

    table = (await site.get("/workflows/w/runs/r")).one("table", "timeline")

    rows = table.one("tbody").all("tr")
    names = ["States", "fetch", "part", "load attempt 2"]
    assert names == [row.one("th").text for row in rows]
    assert ["in0", "in1", "in0"] == [row.one("th").attributes["class"] for row in rows[1:]]
    assert ["1 m 40 s", "50 s", "10 s", "50 s"] == [row.one("td", "num").text for row in rows]
    bars = [
        [(bar.attributes["x"], bar.attributes["width"], bar.attributes["class"]) for bar in row.all("rect")]
        for row in rows
    ]
    assert [
        [("0.0%", "100.0%", "b-running")],
        [("0.0%", "50.0%", "b-success")],
        [("10.0%", "10.0%", "b-success")],
        [("50.0%", "50.0%", "b-failed")],
    ] == bars
    assert "file a.csv rows 3" == rows[1].all("td")[-1].text
    assert "no disk" == rows[3].one("span", "fault").text
    assert ["success", "success", "failed"] == [
        row.one("svg", role="img").attributes["aria-label"] for row in rows[1:]
    ]


async def test_steps_that_are_in_each_other(site: Site) -> None:
    """Steps of another program that are in each other, or in none that is known, are shown all the same."""
    steps = (
        step("a", 0, 1, parent="b"),
        step("b", 1, 2, parent="a"),
        step("c", 2, None, "running", parent="x"),
    )
    await site.log.apply([state(RunStatus.RUNNING, 0, *steps)])

    table = (await site.get("/workflows/w/runs/r")).one("table", "timeline")

    assert ["States", "c", "a", "b"] == [row.one("th").text for row in table.one("tbody").all("tr")]


async def test_history(site: Site) -> None:
    """The history tells each state, how long it lasted, and of an answer who, what and why."""
    pause = PauseRequest(reason="Pay?", choices=("pay", "hold"))
    said = {"answered_by": "ann", "comment": "as agreed", "choice": "pay", "values": {"eur": 42, "to": "x"}}
    answered = pause.model_copy(update=said)
    await site.log.apply(
        [
            state(RunStatus.RUNNING, 0),
            state(RunStatus.PAUSED, 5, pause=pause),
            state(RunStatus.RUNNING, 65, pause=answered),
            state(RunStatus.SUCCESS, 70, pause=answered),
        ]
    )

    rows = (await site.get("/workflows/w/runs/r")).table("history")

    assert [
        ["2026-03-04 12:00:00", "running", "5.0 s", "1", ""],
        ["2026-03-04 12:00:05", "paused", "1 m 0 s", "1", ""],
        ["2026-03-04 12:01:05", "running", "5.0 s", "1", "answered by ann: pay as agreed eur 42 to x"],
        ["2026-03-04 12:01:10", "success", "", "1", ""],
    ] == rows


async def test_payloads_on_demand(site: Site) -> None:
    """Payloads are shown, as JSON, only where they are asked for; the link keeps the filters."""
    run = a_run(trigger_data={"file": "<b>", "deep": [[1, None]]}, result={})
    await site.log.save_run(run)

    plain = await site.get(f"{path_of(run)}?status=success")
    link = plain.link("Show them")
    shown = await site.get(link.partition("#")[0])

    assert f"{path_of(run)}?status=success&payloads=1#payloads" == link
    assert not [node for node in plain.all("pre") if "deep" in node.raw]
    (data,) = [node.raw for node in shown.all("pre") if "deep" in node.raw]
    assert '"file": "<b>"' in data
    assert "None." in texts(shown.all("p", "quiet"))


async def test_runs_beside(site: Site) -> None:
    """Newer and older are those of the list that the run was opened from, with its filters, which go on."""
    for number, (status, workflow) in enumerate(
        [
            (RunStatus.FAILED, "w"),
            (RunStatus.SUCCESS, "w"),
            (RunStatus.FAILED, "v"),
            (RunStatus.FAILED, "w"),
            (RunStatus.FAILED, "w"),
        ]
    ):
        run = a_run(id=str(number), workflow_id=workflow, status=status, started_at=NOON + number * SECOND)
        await site.log.save_run(run)

    everything = await site.get("/workflows/w/runs/3")
    narrowed = await site.get("/workflows/w/runs/3?workflow=w&status=failed")
    last = await site.get("/workflows/w/runs/0?workflow=w&status=failed")

    assert ["/workflows/w/runs/4", "/workflows/v/runs/2"] == beside(everything)
    query = "?workflow=w&status=failed"
    assert [f"/workflows/w/runs/4{query}", f"/workflows/w/runs/0{query}"] == beside(narrowed)
    assert f"/{query}" == narrowed.link("These runs")
    assert [f"/workflows/w/runs/3{query}"] == beside(last)
    assert "Oldest" in last.one("span", "beside").text


def beside(page: Node) -> list[str]:
    """Return where the links to the newer and the older run lead."""
    return [node.attributes["href"] for rel in ("prev", "next") for node in page.all("a", rel=rel)]


@pytest.mark.parametrize("path", ["/workflows/w/runs/nobody", "/workflows/nobody", "/nowhere"])
async def test_what_is_not_there(site: Site, path: str) -> None:
    """What is not there is answered with a page that leads on."""
    page = await site.get(path, 404)

    assert "/" == page.link("Show all runs")
