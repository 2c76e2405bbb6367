"""The commands that read, emit and answer, on the emulators."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.processes import started

from run_log.core import PauseRequest, RunRef, RunStatus, Settings
from run_log.pubsub import PubSubConnection, provision
from run_log.stores import FirestoreRunLogService, page_json
from run_log.testing import an_event

from .command_line import PATIENCE, Ended, asked, called, projecting

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment", "saved")]

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PUBSUB = {"RUN_LOG_BACKEND": "pubsub"}


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every command ask a store with runs of two workflows, one of them paused."""
    monkeypatch.setenv("RUN_LOG_BACKEND", "firestore")
    pause = PauseRequest(reason="pay?", assignee="ann", deadline=NOON)
    statuses = [RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.SUCCESS, RunStatus.RUNNING]
    events = [
        *(
            an_event(
                workflow_id="w/1",
                id=f"r{number}",
                status=status,
                started_at=NOON + number * HOUR,
                labels={"customer": "acme=1", "number": str(number)},
                parent=RunRef("w2", "p") if number else None,
                error_type="ValueError" if status is RunStatus.FAILED else None,
            )
            for number, status in enumerate(statuses)
        ),
        an_event(workflow_id="w2", id="p", status=RunStatus.PAUSED, started_at=NOON, pause=pause),
    ]
    asked(lambda store: store.apply(events))


def document(ended: Ended) -> Any:
    """Return what a command that did what it was told printed as JSON."""
    assert (0, "") == (ended.code, ended.err)
    return json.loads(ended.out)


def ids(ended: Ended) -> list[str]:
    """Return the ids of the runs that a command listed as JSON lines."""
    assert 0 == ended.code
    return [json.loads(line)["id"] for line in ended.out.splitlines()]


def test_listing_runs() -> None:
    """``runs list`` lists a workflow's runs, filtered, from either end, page by page or all."""
    everything = called("runs", "list", "w/1", "-o", "json")
    failed = called("runs", "list", "w/1", "--status", "failed", "--status", "running", "-o", "jsonl")
    since = called("runs", "list", "w/1", "--since", "2026-03-04T14:00:00Z", "-o", "jsonl")
    oldest = called("runs", "list", "w/1", "--order", "oldest", "--until", "2026-03-04T14:00", "-o", "jsonl")
    page = called("runs", "list", "w/1", "--limit", "3", "-o", "jsonl")
    cursor = page.err.removeprefix("more: --after ").strip()
    after = called("runs", "list", "w/1", "--limit", "3", "--after", cursor, "-o", "jsonl")
    pages = called("runs", "list", "w/1", "--limit", "3", "--all", "-o", "jsonl")
    table = called("runs", "list", "w/1")

    stored, _ = asked(lambda store: store.list_runs("w/1"))
    assert page_json("runs", stored) == document(everything)
    assert ["r3", "r1"] == ids(failed)
    assert ["r3", "r2"] == ids(since)
    assert ["r0", "r1"] == ids(oldest)
    assert [["r3", "r2", "r1"], ["r0"]] == [ids(page), ids(after)]
    assert ["r3", "r2", "r1", "r0"] == ids(pages)
    assert (0, "") == (table.code, table.err)
    assert all(run.id in table.out for run in stored)


def test_listing_runs_of_all_workflows() -> None:
    """``runs list`` without a workflow lists the runs of all, by anything; ``runs failures`` groups them."""
    everything = called("runs", "list", "--limit", "3", "--all", "-o", "jsonl")
    failed = called("runs", "list", "--failed", "--status", "paused", "-o", "jsonl")
    label = called("runs", "list", "--label", "customer=acme=1", "--label", "number=2", "-o", "jsonl")
    parent = called("runs", "list", "--parent", "w2", "p", "--order", "oldest", "-o", "jsonl")
    error_type = called("runs", "list", "--error-type", "ValueError", "--since", "2026-03-04", "-o", "jsonl")
    recent = called("runs", "list", "--since", "1h")
    table = called("runs", "list")
    failures = called("runs", "failures", "-o", "json")
    none = called("runs", "failures", "w2")

    assert ["r3", "r2", "r1", "p", "r0"] == ids(everything)
    assert ["r1", "p"] == ids(failed)
    assert ["r2"] == ids(label)
    assert ["r1", "r2", "r3"] == ids(parent)
    assert ["r1"] == ids(error_type)
    assert (0, "", "no runs\n") == (recent.code, recent.out, recent.err)
    assert all(name in table.out for name in ("w/1", "w2", "r0", "p"))
    (group,) = document(failures)["failures"]
    assert ("w/1", "ValueError", "it broke", 1, "r1") == (
        *(group[name] for name in ("workflow_id", "error_type", "text", "count")),
        group["newest"]["id"],
    )
    assert (0, "", "no failures\n") == (none.code, none.out, none.err)


def test_counting_runs() -> None:
    """``runs count`` counts on Firestore by what an index finds, and says by which filters it cannot."""
    everything = called("runs", "count", "-o", "json")
    failed = called("runs", "count", "w/1", "--failed", "--since", "2026-03-04")
    children = called("runs", "count", "--parent", "w2", "p")
    refused = called("runs", "count", "--label", "customer=acme=1", "--failed")

    assert {"runs": 5} == document(everything)
    assert [(0, "1\n", ""), (0, "3\n", "")] == [(one.code, one.out, one.err) for one in (failed, children)]
    assert (2, "") == (refused.code, refused.out)
    assert "no index that counts runs of all workflows by status" in refused.err


def test_one_run() -> None:
    """``runs show`` and ``runs history`` tell all of one run, ``runs stats`` of one workflow."""
    shown = called("runs", "show", "w/1", "r1", "-o", "json")
    sheet = called("runs", "show", "w/1", "r1")
    history = called("runs", "history", "w/1", "r1", "-o", "json")
    stats = called("runs", "stats", "w/1", "-o", "json")
    window = called("runs", "stats", "w/1", "--window", "2h", "-o", "jsonl")

    assert ("r1", "failed") == (document(shown)["id"], document(shown)["status"])
    assert "failed" in sheet.out
    assert ["failed"] == [transition["status"] for transition in document(history)["transitions"]]
    assert (4, 2 / 3) == (document(stats)["total"], document(stats)["success_rate"])
    assert 0 == document(window)["total"]


def test_the_inbox() -> None:
    """``runs pending`` lists who waits, and ``runs resume`` and ``runs reject`` answer, once."""
    for_ann = called("runs", "pending", "--assignee", "ann", "--overdue", "-o", "json")
    for_bob = called("runs", "pending", "--assignee", "bob", "-o", "json")
    in_time = called("runs", "pending", "--in-time", "--workflow", "w2")
    workflows = called("workflows", "-o", "json")
    resumed = called("runs", "resume", "w2", "p", "--by", "ann", "--comment", "fine")
    again = called("runs", "reject", "w2", "p", "--by", "ann")
    history = called("runs", "history", "w2", "p", "-o", "jsonl")

    (pending,) = document(for_ann)["pending_runs"]
    assert ("p", True) == (pending["id"], pending["overdue"])
    assert [] == document(for_bob)["pending_runs"]
    assert (0, "", "no pending runs\n") == (in_time.code, in_time.out, in_time.err)
    assert {"w/1": 4, "w2": 1} == {
        one["workflow_id"]: one["total"] for one in document(workflows)["workflows"]
    }
    assert (0, "", "run 'p' of workflow 'w2' is running\n") == (resumed.code, resumed.out, resumed.err)
    assert (2, "") == (again.code, again.out)
    assert "ann" == json.loads(history.out.splitlines()[-1])["answered_by"]


def test_emitting() -> None:
    """``emit`` saves a state by hand, keeps what the run began with, and can wait until queries see it."""
    first = called("emit", "w3", "--status", "running", "--data", '{"n": 1}', "--wait", "20")
    run_id = first.out.strip()
    begun = asked(lambda store: store.get_run("w3", run_id))
    second = called("emit", "w3", "--run", run_id, "--status", "failed", "--error", "why")
    ended = asked(lambda store: store.get_run("w3", run_id))

    assert (0, 0) == (first.code, second.code)
    assert first.err.startswith("queries saw it after ")
    assert begun is not None
    assert ended is not None
    assert (RunStatus.RUNNING, {"n": 1}) == (begun.status, begun.trigger_data)
    assert (RunStatus.FAILED, "why", begun.started_at) == (ended.status, ended.error, ended.started_at)


def test_emitting_through_the_topic() -> None:
    """With the topic as its way, ``emit`` waits for the projector; without one it exits 5 in time."""
    settings = Settings.from_env()
    provision(PubSubConnection.from_settings(settings), settings)
    late = called("emit", "w3", "--wait", "0.2", environment=PUBSUB)
    with projecting():
        seen = called("emit", "w3", "--run", "r", "--wait", "25", environment=PUBSUB)

    assert 5 == late.code
    assert "queries did not see it within 0.2 s" in late.err
    assert (0, "r\n") == (seen.code, seen.out)
    assert asked(lambda store: store.get_run("w3", "r")) is not None


async def test_watching_one_run(store: FirestoreRunLogService) -> None:
    """``runs watch`` shows one run until it has ended; its end is the exit code where that is asked for."""
    event = an_event(workflow_id="w3", id="r", status=RunStatus.RUNNING)
    await store.apply([event])
    async with (
        started("runs", "watch", "w3", "r", "--exit-status", "-o", "jsonl") as process,
        asyncio.timeout(PATIENCE),
    ):
        assert process.stdout is not None
        first = json.loads(await process.stdout.readline())
        await store.apply([an_event(workflow_id="w3", id="r", status=RunStatus.FAILED, hlc=event.hlc + 1)])
        last = json.loads(await process.stdout.readline())
        code = await process.wait()

    assert ["running", "failed"] == [first["status"], last["status"]]
    assert 1 == code


async def test_watching_all(store: FirestoreRunLogService) -> None:
    """``runs watch`` shows changes until Ctrl-C, and goes on from a cursor with what came meanwhile."""
    async with store.watch() as watch:
        await store.apply([an_event(workflow_id="w3", id="r0")])
        first = await anext(aiter(watch))
    await store.apply([an_event(workflow_id="w3", id="r1")])
    async with (
        started("runs", "watch", "--cursor", first.cursor, "-o", "jsonl") as process,
        asyncio.timeout(PATIENCE),
    ):
        assert process.stdout is not None
        shown = json.loads(await process.stdout.readline())
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()

    assert ("w3", "r1") == (shown["workflow_id"], shown["id"])
    assert (130, b"", b"") == (process.returncode, out, err)


def test_a_doctors_visit() -> None:
    """``doctor`` exits 1 where something is missing and says what to do, and 0 once it is there."""
    before = called("doctor", "-o", "json")
    provisioned = called("provision")
    after = called("doctor", "-o", "jsonl")
    table = called("doctor")

    missing = {check["check"]: check for check in json.loads(before.out)["checks"]}
    assert (1, "wrong") == (before.code, missing["topic"]["verdict"])
    assert "run-log provision" in missing["topic"]["remedy"]
    assert 0 == provisioned.code
    assert 0 == after.code, after.out
    assert {"ok", "skipped"} == {json.loads(line)["verdict"] for line in after.out.splitlines()}
    assert (0, True) == (table.code, "dead-letter policy" in table.out)
