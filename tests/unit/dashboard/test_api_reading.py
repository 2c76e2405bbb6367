"""What the API shows is what the library returns and the command line prints, as JSON."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.console.files import in_file
from tests.unit.console.processes import run_log

from run_log.core import PauseRequest, RunEvent, RunRef, RunStatus, Step, StepStatus, utc_now
from run_log.core.protocol import MAX_LIMIT
from run_log.stores import SQLiteRunLogService, page_json
from run_log.testing import a_run

from .api import NOON, Api, opened_api, path_of, problem_of

DEEP: Any = json.loads(f"{'[' * 400}7{']' * 400}")

RUNS = [
    a_run(
        id="done",
        workflow_id="w",
        status=RunStatus.SUCCESS,
        started_at=NOON,
        trigger_data={"lone": "\ud800", "": [[]]},
        result={"deep": DEEP, "large": 10**30},
        labels={"customer": "acme"},
        parent=RunRef("w", "a/b"),
    ),
    a_run(
        id="failed",
        workflow_id="w",
        status=RunStatus.FAILED,
        started_at=NOON,
        error="line 7\nmore",
        error_type="ValueError",
    ),
    a_run(
        id="paused",
        workflow_id="a/b",
        status=RunStatus.PAUSED,
        started_at=NOON,
        pause=PauseRequest(reason="Pay?", deadline=NOON, assignee="ann", choices=("yes", "no")),
    ),
    a_run(id="..", workflow_id="-", status=RunStatus.RUNNING, started_at=NOON - timedelta(days=1)),
]
STEP = Step(key="a", name="download", status=StepStatus.SUCCESS, started_at=NOON, ended_at=NOON, version=1)


async def filled(api: Api) -> None:
    """Save `RUNS`, the last one with a step."""
    for run in RUNS:
        await api.log.save_run(run)


async def test_a_run_is_as_the_library_has_it(api: Api) -> None:
    """A run is shown whole, whatever its ids and payloads are."""
    await filled(api)

    for run in RUNS:
        assert run.to_json() == await api.json(path_of(run))


async def test_a_list_is_as_the_library_has_it(api: Api) -> None:
    """A list is that of the library: without a word of payloads, unless they are asked for."""
    await filled(api)

    light, _ = await api.log.list_runs("w", payloads=False)
    whole, _ = await api.log.list_runs(None)

    assert page_json("runs", light, payloads=False) == await api.json("/workflows/w/runs")
    assert page_json("runs", whole) == await api.json("/workflows/-/runs", {"payloads": "true"})
    for run in (await api.json("/workflows/-/runs"))["runs"]:
        assert not {"trigger_data", "result"} & run.keys()


async def test_what_is_beside_runs_is_as_the_library_has_it(api: Api) -> None:
    """Workflows, histories, steps, summaries, failures and the inbox are those of the library."""
    await filled(api)
    now = utc_now()
    async with opened_api(api.log, now=lambda: now) as asked:
        counts, _ = await api.log.list_workflows()
        history = await api.log.get_history("a/b", "paused")
        summary = await api.log.get_summary("w", timedelta(days=7), now=now)
        groups = await api.log.list_failures("w")
        inbox, _ = await api.log.list_pending(overdue=True, now=now)
        stale, _ = await api.log.list_stale(timedelta(0), now=now + timedelta(hours=1))

        assert page_json("workflows", counts) == await asked.json("/workflows")
        assert page_json("transitions", history) == await asked.json("/workflows/a~2Fb/runs/paused/history")
        assert summary.to_json() == await asked.json("/workflows/w/summary", {"window": "7d"})
        assert page_json("failures", groups) == await asked.json("/workflows/w/failures")
        assert page_json("pending_runs", inbox) == await asked.json("/pending", {"overdue": "true"})
    async with opened_api(api.log, now=lambda: now + timedelta(hours=1)) as later:
        assert page_json("stale_runs", stale) == await later.json("/stale", {"older_than": "0s"})
        assert {"stale_runs": []} == await later.json("/stale", {"older_than": "2h"})


async def test_steps_are_as_the_library_has_them(api: Api) -> None:
    """The steps of a run are shown in their order; a run without any has an empty list."""
    await filled(api)
    await api.log.apply([RunEvent(run=RUNS[0], steps=(STEP,))])

    assert page_json("steps", [STEP]) == await api.json("/workflows/w/runs/done/steps")
    assert {"steps": []} == await api.json("/workflows/w/runs/failed/steps")


@pytest.mark.process
@pytest.mark.parametrize(
    ("command", "path", "parameters"),
    [
        ("runs list w", "/workflows/w/runs", {"payloads": "true"}),
        ("runs list --failed", "/workflows/-/runs", {"payloads": "true", "filter": "status = failed"}),
        ("runs list --limit 1", "/workflows/-/runs", {"payloads": "true", "page_size": "1"}),
        ("runs show a/b paused", "/workflows/a~2Fb/runs/paused", {}),
        ("runs history w done", "/workflows/w/runs/done/history", {}),
        ("runs steps w done", "/workflows/w/runs/done/steps", {}),
        ("runs failures", "/workflows/-/failures", {}),
        ("workflows", "/workflows", {}),
    ],
)
def test_the_command_line_prints_the_same(
    command: str, path: str, parameters: dict[str, str], tmp_path: Path
) -> None:
    """What the command line prints with ``-o json`` is what the API answers."""

    async def answered(log: SQLiteRunLogService) -> Any:
        async with opened_api(log) as api:
            await filled(api)
            return await api.json(path, parameters)

    shown = in_file(tmp_path / "runs", answered)
    settings = {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(tmp_path / "runs")}

    ended = run_log(*command.split(), "-o", "json", folder=tmp_path, **settings)

    assert shown == json.loads(ended.out), ended.err


async def test_pages_lead_from_one_to_the_next(api: Api) -> None:
    """A page has as many as are asked for, and the token of the next, which the last one has not."""
    await filled(api)
    found: list[str] = []
    token: str | None = ""
    while token is not None:
        page = await api.json("/workflows/-/runs", {"page_size": 3, "page_token": token})
        found += [run["id"] for run in page["runs"]]
        token = page.get("next_page_token")

    assert sorted(run.id for run in RUNS) == sorted(found)
    workflows = await api.json("/workflows", {"page_size": 2})
    more = await api.json("/workflows", {"page_size": 2, "page_token": workflows["next_page_token"]})
    assert ["-", "a/b", "w"] == sorted(
        one["workflow_id"] for one in (*workflows["workflows"], *more["workflows"])
    )
    assert "next_page_token" not in more


@pytest.mark.parametrize(
    ("given", "asked"), [("0", 50), ("1", 1), ("1000", MAX_LIMIT), ("9" * 30, MAX_LIMIT)]
)
async def test_a_size_is_coerced(given: str, asked: int, api: Api) -> None:
    """A size of nothing is the usual one, and a too large one the largest."""
    runs = [a_run(workflow_id="w", id=f"{number}") for number in range(60)]
    for run in runs:
        await api.log.save_run(run)

    page = await api.json("/workflows/w/runs", {"page_size": given})

    assert min(asked, len(runs)) == len(page["runs"])


@pytest.mark.parametrize("path", ["/workflows", "/workflows/-/runs", "/pending", "/stale"])
@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"page_size": "-1"}, "invalid-argument"),
        ({"page_size": "many"}, "invalid-argument"),
        ({"page_token": "nonsense"}, "invalid-cursor"),
    ],
)
async def test_no_page_is_made_up(path: str, parameters: dict[str, str], name: str, api: Api) -> None:
    """A size below nothing and a token of nothing are refused."""
    problem = problem_of(await api.get(path, parameters), 400)

    assert f"urn:run-log:problem:{name}" == problem["type"]


async def test_a_token_is_of_its_filter(api: Api) -> None:
    """The token of a page is refused with another filter than that page had, and with another workflow."""
    for number in range(3):
        await api.log.save_run(a_run(workflow_id="w", id=f"{number}", labels={"a": "b"}))
    asked = {"page_size": "1", "filter": 'labels.a = "b"'}
    token = (await api.json("/workflows/w/runs", asked))["next_page_token"]

    assert 1 == len((await api.json("/workflows/w/runs", {**asked, "page_token": token}))["runs"])
    for path, changed in (("w", {"filter": ""}), ("w", {"filter": "status=failed"}), ("-", {})):
        response = await api.get(f"/workflows/{path}/runs", {**asked, "page_token": token, **changed})
        assert "urn:run-log:problem:invalid-cursor" == problem_of(response, 400)["type"]


async def test_filters_select_runs(api: Api) -> None:
    """Each field of a filter selects what it says, and all conditions have to hold."""
    await filled(api)
    for filter_, expected in {
        "": {"done", "failed", "paused", ".."},
        "status = failed": {"failed"},
        "error_type=ValueError AND status=failed": {"failed"},
        "error_type=ValueError AND status=success": set[str](),
        "labels.customer = 'acme'": {"done"},
        'parent = "w/a~2Fb"': {"done"},
        "started_at < 2026-03-04T12:00:00Z": {".."},
        "started_at >= 2026-03-04T13:00:00+01:00": {"done", "failed", "paused"},
        "started_at = 2026-03-04T12:00:00Z AND trigger_type=manual": {"done", "failed", "paused"},
    }.items():
        page = await api.json("/workflows/-/runs", {"filter": filter_})
        assert expected == {run["id"] for run in page["runs"]}, filter_


async def test_the_inbox_and_what_is_silent_can_be_narrowed(api: Api) -> None:
    """Paused runs are found by who is asked and by workflow, and silent ones by workflow."""
    await filled(api)

    async def ids(path: str, **parameters: str) -> list[str]:
        (listed,) = (await api.json(path, parameters)).values()
        return [run["id"] for run in listed]

    assert ["paused"] == await ids("/pending", assignee="ann", workflow_id="a/b")
    assert [] == await ids("/pending", assignee="bob")
    assert [] == await ids("/pending", overdue="false")
    assert [".."] == await ids("/stale", older_than="0s", workflow_id="-")
    assert [] == await ids("/stale", older_than="0s", workflow_id="w")


@pytest.mark.parametrize(
    "path",
    [
        "/workflows/w/summary?window=week",
        "/workflows/w/summary?window=1000d",
        "/workflows/-/summary",
        "/workflows/w/failures?since=soon",
        "/stale?older_than=long",
        "/pending?overdue=perhaps",
        "/pending?assignee=",
        "/workflows/-/runs/run-1",
        "/workflows/w~/runs",
        "/workflows/w/runs/~FF",
        "/workflows/w/runs/~2f",
    ],
)
async def test_what_cannot_be_used_is_refused(path: str, api: Api) -> None:
    """A parameter that cannot be used is answered with 400, and the reason."""
    problem = problem_of(await api.get(path), 400)

    assert ("urn:run-log:problem:invalid-argument", f"/api/v1{path.partition('?')[0]}") == (
        problem["type"],
        problem["instance"],
    )


@pytest.mark.parametrize("below", ["", "/history", "/steps"])
async def test_a_run_that_is_not_there(below: str, api: Api) -> None:
    """A run that is not there is a 404 that names it, whatever is asked of it."""
    problem = problem_of(await api.get(f"/workflows/a~2Fb/runs/~20{below}"), 404)

    assert ("a/b", " ") == (problem["workflow_id"], problem["run_id"])
    assert "urn:run-log:problem:run-not-found" == problem["type"]


@pytest.mark.parametrize("below", ["", "/history", "/steps"])
async def test_what_a_client_has_is_not_sent_again(below: str, api: Api) -> None:
    """A run, its history and its steps are sent again once they have changed, and not before."""
    await api.log.save_run(RUNS[3])
    path = f"{path_of(RUNS[3])}{below}"
    first = await api.get(path)
    tag = first.headers["etag"]

    again = await api.get(path, if_none_match=f'"other", W/{tag}')
    await api.log.apply([RunEvent(run=RUNS[3], steps=(STEP,)), RunEvent(run=RUNS[3])])
    changed = await api.get(path, if_none_match=tag)

    assert (304, b"", tag) == (again.status_code, again.content, again.headers["etag"])
    assert {"private, no-cache"} == {each.headers["cache-control"] for each in (first, again, changed)}
    assert 200 == changed.status_code
    assert changed.headers["etag"] not in {tag, ""}
