"""What lies in Firestore: the layout others may read, and documents that something else wrote."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import google.cloud.firestore
import pytest

from run_log.core import (
    ConfigurationError,
    Outcome,
    PauseRequest,
    RunLogError,
    RunRef,
    RunStatus,
    UnreadableRunError,
    WorkflowRun,
    WriteRefusedError,
)
from run_log.core.law import run_digest
from run_log.projector import Projector
from run_log.stores import FirestoreRunLogService
from run_log.stores.audit import verify
from run_log.stores.stored.fields import EXPIRE_AT, HISTORY, OPTIONAL, PROJECTION
from run_log.testing import a_life, a_run, an_event

from .firestore_kit import OpenedService

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

firestore: Any = google.cloud.firestore  # published without annotations

NOON = datetime(2026, 3, 4, 12, 0, 0, 123_456, tzinfo=UTC)


RUN = "autopilot_runs/w/runs/r"


async def test_the_layout_of_a_run(plain: OpenedService) -> None:
    """A run's document has its fields, native timestamps, payloads as JSON text, and the projection's map."""
    event = an_event(
        a_run(
            workflow_id="a/b",
            id="r",
            status=RunStatus.PAUSED,
            trigger_data={"a.b": [[1]]},
            started_at=NOON,
            pause=PauseRequest(reason="sure?", assignee="mei", deadline=NOON),
        ),
        hlc=7,
        event_id="e1",
    )

    await plain.apply([event])

    snapshot = await plain.reference("autopilot_runs/a%2Fb/runs/r").get()
    fields = snapshot.to_dict()
    assert isinstance(fields["projection"].pop("changed_at"), datetime)
    assert fields == {
        "id": "r",
        "workflow_id": "a/b",
        "status": "paused",
        "trigger_type": "manual",
        "trigger_data": '{"a.b":[[1]]}',
        "result": "{}",
        "error": None,
        "started_at": NOON,
        "completed_at": None,
        "duration_ms": 0.0,
        "attempt": 1,
        "pause": {
            "reason": "sure?",
            "assignee": "mei",
            "deadline": NOON,
            "answered_by": None,
            "comment": None,
        },
        "projection": {
            "attempt": 1,
            "hlc": 7,
            "event_id": "e1",
            "occurred_at": NOON,
            "inferred": False,
            "paused_started_at": NOON,
            "paused_assignee": "mei",
            "paused_deadline": NOON,
            "changed_shard": "autopilot_runs/1",
            "history": [f'[1,7,"e1","paused",1772625600123456,0,"","{run_digest(event.run)}"]'],
        },
    }


async def test_what_only_some_runs_have(plain: OpenedService) -> None:
    """Active runs have when they were heard of, paused ones who is asked until when; others neither."""
    own = ("active_since", "paused_assignee", "paused_deadline", "paused_started_at")
    found: list[dict[str, Any]] = []
    for status in (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.SUCCESS):
        await plain.save_run(a_run(workflow_id="w", id="r", status=status, started_at=NOON))
        projection = (await plain.reference(RUN).get()).to_dict()["projection"]
        found.append({name: projection[name] for name in own if name in projection})

    running, paused, ended = found
    assert ["active_since"] == list(running)
    assert {"paused_started_at": NOON, "paused_deadline": datetime.max.replace(tzinfo=UTC)} == paused
    assert {} == ended


@pytest.mark.parametrize("name", ["%zz", "%5F%5Fx", "a%2fb"])
async def test_what_is_no_workflow_is_not_listed(plain: OpenedService, name: str) -> None:
    """A document beside the workflows', under a name that no workflow has, ends and repeats nothing."""
    await plain.apply([an_event(workflow_id=workflow_id) for workflow_id in ("!", "b", "~")])
    await plain.reference(f"autopilot_runs/{name}").set({"workflow_id": "b", "total": 7})

    found: list[str] = []
    cursor = None
    for _ in range(3):
        page, cursor = await plain.list_workflows(limit=1, start_after=cursor)
        found += [stats.workflow_id for stats in page]

    assert (["!", "b", "~"], None) == (found, cursor)


async def test_a_damaged_workflow_is_not_listed(
    plain: OpenedService, caplog: pytest.LogCaptureFixture
) -> None:
    """A workflow whose stats something else damaged is skipped with a warning, and ends no page."""
    await plain.apply([an_event(workflow_id=workflow_id) for workflow_id in ("a", "b", "c")])
    await plain.reference("autopilot_runs/b").update({"by_status": "text"})

    first, cursor = await plain.list_workflows(limit=1)
    second, end = await plain.list_workflows(limit=1, start_after=cursor)

    assert (["a", "c"], None) == ([stats.workflow_id for stats in (*first, *second)], end)
    assert {"b"} == {
        vars(record)["workflow_id"]
        for record in caplog.records
        if vars(record).get("event") == "run_log_unreadable_stats"
    }


async def test_the_layout_of_the_stats(plain: OpenedService) -> None:
    """A workflow's document has total, successful, and a count for each status there was."""
    await plain.apply([*a_life("w", "r1"), *a_life("w", "r2", end=RunStatus.FAILED)])
    await plain.save_run(a_run(workflow_id="w", id="r1", status=RunStatus.FAILED))

    fields = (await plain.reference("autopilot_runs/w").get()).to_dict()

    assert isinstance(fields.pop("as_of"), int)
    assert isinstance(fields.pop("durations"), dict)
    assert fields == {
        "workflow_id": "w",
        "total": 2,
        "successful": 0,
        "by_status": {"failed": 2, "success": 0},
    }


async def test_an_update_leaves_nothing_old(plain: OpenedService) -> None:
    """A run's update replaces every field whole: no key of an older payload or pause stays."""
    old, new = {"old": 1}, {"new": 1}
    ended = a_run(workflow_id="w", id="r", result=new, pause=None)
    await plain.save_run(
        a_run(workflow_id="w", id="r", status=RunStatus.PAUSED, trigger_data=old, result=old)
    )
    await plain.save_run(ended)

    fields = (await plain.reference(RUN).get()).to_dict()
    assert ("{}", new, None) == (fields["trigger_data"], json.loads(fields["result"]), fields["pause"])
    assert ended == await plain.get_run("w", "r")


async def test_the_inbox_is_of_one_root_collection(plain: OpenedService) -> None:
    """Runs paused in another root collection, such as a rebuild's, are not in the inbox."""
    other = FirestoreRunLogService(root_collection="autopilot_runs_2")
    for service, run_id in ((other, "other"), (plain, "own")):
        await service.save_run(a_run(workflow_id="w", id=run_id, status=RunStatus.PAUSED))

    inboxes = [[run.id for run in await one.get_pending_runs()] for one in (plain, other)]
    await other.close()

    assert inboxes == [["own"], ["other"]]


SPOILS: dict[str, dict[str, Any]] = {
    "unknown status": {"status": "no such"},
    "text for a time": {"started_at": "2020-01-01T00:00:00Z"},
    "number for a time": {"started_at": 1_700_000_000},
    "no JSON": {"trigger_data": "{"},
    "no object": {"result": "[]"},
    "another id": {"id": "zzz"},
    "another workflow": {"workflow_id": "w2"},
    "no version": {"projection.hlc": "text"},
    "an infinite version": {"projection.hlc": float("inf")},
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
async def test_what_cannot_be_read_is_skipped(plain: OpenedService, spoil: dict[str, Any]) -> None:
    """A document that something else changed is named by `get_run`, and skipped by pages of any size."""
    for n in range(5):
        await plain.apply([an_event(workflow_id="w", id=f"r{n}", started_at=NOON - timedelta(hours=n))])
    await plain.reference("autopilot_runs/w/runs/r2").update(spoil)

    with pytest.raises(UnreadableRunError, match="r2"):
        await plain.get_run("w", "r2")

    for limit in (1, 2, 3, 4):
        page, cursor = await plain.list_runs("w", limit=limit)
        walked = list(page)
        while cursor is not None:
            page, cursor = await plain.list_runs("w", limit=limit, start_after=cursor)
            walked += page
        assert [run.id for run in walked] == ["r0", "r1", "r3", "r4"]


async def test_a_list_does_not_look_at_the_whole_projection_map(plain: OpenedService) -> None:
    """Lists read what they show of the map, so a run without one is listed. Who asks for it is told."""
    await plain.apply([an_event(workflow_id="w", id="r")])
    await plain.reference(RUN).update({"projection": "text"})

    listed, _ = await plain.list_runs("w")
    with pytest.raises(UnreadableRunError, match="'r'"):
        await plain.get_run("w", "r")

    assert ["r"] == [run.id for run in listed]


HISTORIES = {
    "no history": ["text"],
    "a moment out of range": ['[1,1,"e","success",99999999999999999999,0]'],
    "too deep a history": ["[" * 100_000],
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
async def test_a_run_with_a_damaged_history_is_still_read(plain: OpenedService, history: list[str]) -> None:
    """A run whose history something else damaged is listed and returned; only its history cannot be read."""
    await plain.apply([an_event(workflow_id="w", id="r")])
    await plain.reference(RUN).update({"projection.history": history})

    listed, _ = await plain.list_runs("w")
    assert [await plain.get_run("w", "r")] == listed
    with pytest.raises(UnreadableRunError, match="r"):
        await plain.get_history("w", "r")


@pytest.mark.parametrize("spoil", [{"status": "no such"}, {"projection": "text"}])
async def test_what_cannot_be_merged_is_refused_alone(plain: OpenedService, spoil: dict[str, Any]) -> None:
    """Events of a run whose stored head cannot be read are refused; the others of the batch are applied."""
    await plain.apply([an_event(workflow_id="w", id="bad")])
    await plain.reference("autopilot_runs/w/runs/bad").update(spoil)
    other = OpenedService.from_env()
    events = [an_event(workflow_id="w", id=run_id) for run_id in ("good", "bad", "better")]

    with pytest.raises(WriteRefusedError, match="bad"):
        await other.apply(events)
    outcomes = await Projector(other).apply(events)
    await other.close()

    assert outcomes == [Outcome.APPLIED, Outcome.REJECTED, Outcome.APPLIED]
    assert await plain.get_stats("w") == {"total": 3, "successful": 3}


async def test_a_document_without_a_projection_map(plain: OpenedService) -> None:
    """A run that was written without versions can be read, and any event is newer than it."""
    started = a_run(workflow_id="w", id="r", status=RunStatus.RUNNING)
    await plain.save_run(started)
    fields = (await plain.reference(RUN).get()).to_dict()
    del fields["projection"]
    await plain.reference(RUN).set({**fields, "trigger_data": {"native": [1]}})
    found = await plain.get_run("w", "r")

    ended = an_event(workflow_id="w", id="r", hlc=1)
    outcomes = await plain.apply([ended])

    assert started.model_copy(update={"trigger_data": {"native": [1]}}) == found
    assert outcomes == [Outcome.APPLIED]
    assert ended.run == await plain.get_run("w", "r")
    assert await plain.get_stats("w") == {"total": 1, "successful": 1}


@pytest.mark.parametrize("root", ["a/b", "a/b/c", "", ".", "..", "__x__"])
def test_a_root_collection_that_is_no_collection_is_refused(root: str) -> None:
    """A root collection that Firestore does not take, or that leads elsewhere, is refused at once."""
    with pytest.raises(ConfigurationError, match="root_collection"):
        FirestoreRunLogService(root_collection=root)


_ODD: Final[tuple[Any, ...]] = (
    firestore.DELETE_FIELD,
    None,
    True,
    0,
    -1,
    2**62 - 1,
    2**63 - 1,
    -(2**63),
    1.5,
    float("nan"),
    float("inf"),
    1e300,
    "",
    "x",
    "9" * 30,
    b"\xff",
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    [1, "x"],
    ["[1,1e999]", f'[{10**30},{10**30},"e","running",0,0]'],
    {"a": {"b": 1}},
    firestore.GeoPoint(1, 2),
)
_FIELDS: Final = (
    *WorkflowRun.model_fields,
    EXPIRE_AT,
    PROJECTION,
    *(f"{PROJECTION}.{name}" for name in ("attempt", "hlc", "event_id", "occurred_at", HISTORY, *OPTIONAL)),
    f"{PROJECTION}.changed_at",
    f"{PROJECTION}.changed_shard",
)
_STATS: Final = ("total", "successful", "by_status", "durations", "days", "hours", "shards", "as_of")


async def test_whatever_a_document_holds_is_a_value_or_an_error_of_ours(plain: OpenedService) -> None:
    """Whatever stands in each field of a document, each query, save and audit of it ends, as it may."""
    chance = random.Random(1)
    statuses = (RunStatus.PAUSED, RunStatus.RUNNING, RunStatus.SUCCESS)
    spoils = [(field, value) for field in _FIELDS for value in chance.sample(_ODD, 5)]
    runs = [
        a_run(
            workflow_id="w",
            id=f"r{number:03}",
            status=statuses[number % 3],
            started_at=NOON,
            labels={"team": "a"},
            parent=RunRef("w", "p"),
        )
        for number in range(len(spoils))
    ]
    whole = [a_run(workflow_id="w", id=f"whole-{status.value}", status=status) for status in statuses]
    several = [(field, value) for field in _STATS for value in chance.sample(_ODD, 8)]
    stats = [(f"s{number}", *spoil) for number, spoil in enumerate(several)]
    await plain.apply([an_event(run) for run in (*runs, *whole)])
    await plain.apply([an_event(workflow_id=workflow) for workflow, _, _ in stats])
    writes: list[tuple[str, dict[str, Any]]] = [
        *((f"w/runs/{run.id}", {field: value}) for run, (field, value) in zip(runs, spoils, strict=True)),
        *((workflow, {field: value}) for workflow, field, value in stats),
    ]
    for start in range(0, len(writes), 200):
        batch = plain.reference(RUN)._client.batch()
        for path, change in writes[start : start + 200]:
            batch.update(plain.reference(f"autopilot_runs/{path}"), change)
        await batch.commit()

    found = {run.id async for run in plain.iter_runs("w", page_size=20)}
    assert {run.id for run in whole} <= found
    for ask in (
        partial(plain.list_runs, None, limit=20),
        partial(plain.list_runs, None, limit=20, order="oldest", status="paused"),
        partial(plain.list_runs, "w", limit=20, label=("team", "a")),
        partial(plain.list_runs, None, limit=20, parent=RunRef("w", "p"), payloads=False),
        partial(plain.list_pending, limit=20),
        partial(plain.list_pending, limit=20, overdue=False),
        partial(plain.list_pending, limit=20, workflow_id="w"),
        partial(plain.list_stale, timedelta(0), limit=20),
        partial(plain.list_workflows, limit=20),
    ):
        cursor = None
        for _ in range(50):
            _, cursor = await ask(start_after=cursor)
            if cursor is None:
                break
        assert cursor is None
    asked: list[Any] = [plain.get_pending_runs(), plain.get_latest_run("w"), plain.get_stats("w")]
    asked += [plain.get_history("w", run.id) for run in runs]
    asked += [plain.mark_lost("w", run.id, older_than=timedelta(0)) for run in runs]
    asked += [plain.get_summary(workflow) for workflow, _, _ in stats]
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        assert not isinstance(answer, BaseException) or isinstance(answer, RunLogError), repr(answer)

    outcomes = await Projector(plain).apply([an_event(run) for run in (*runs, *whole)])
    assert [Outcome.APPLIED] * len(whole) == outcomes[-len(whole) :]
    verified = [one async for one in verify(plain.audit(page=100), repair=True)]
    assert {"w", "s0"} <= {one.workflow_id for one in verified}
