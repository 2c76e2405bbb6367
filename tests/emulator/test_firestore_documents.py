"""What lies in Firestore: the layout others may read, and documents that something else wrote."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from run_log.core import (
    ConfigurationError,
    Outcome,
    PauseRequest,
    RunStatus,
    UnreadableRunError,
    WriteRefusedError,
    document_id,
)
from run_log.projector import Projector
from run_log.stores import FirestoreRunLogService
from run_log.testing import a_life, a_run, an_event

pytestmark = pytest.mark.emulator

NOON = datetime(2026, 3, 4, 12, 0, 0, 123_456, tzinfo=UTC)


class OpenedService(FirestoreRunLogService):
    """A service that shows its documents."""

    def run_document(self, workflow_id: str, run_id: str) -> Any:
        """Return the reference of a run's document."""
        return self._runs(workflow_id).document(document_id(run_id))

    def stats_document(self, workflow_id: str) -> Any:
        """Return the reference of a workflow's document."""
        return self._workflow(workflow_id)


@pytest.fixture
async def service(emulator_environment: Mapping[str, str]) -> AsyncIterator[OpenedService]:
    """Yield a service of an empty project."""
    assert emulator_environment
    service = OpenedService.from_env()
    yield service
    await service.close()


async def test_the_layout_of_a_run(service: OpenedService) -> None:
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

    await service.apply([event])

    snapshot = await service.run_document("a/b", "r").get()
    assert snapshot.reference.path == "autopilot_runs/a%2Fb/runs/r"
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
            "changed_shard": 13,
            "history": ['[1,7,"e1","paused",1772625600123456,0]'],
        },
    }


async def test_what_only_some_runs_have(service: OpenedService) -> None:
    """Active runs have when they were heard of, paused ones who is asked until when; others neither."""
    own = ("active_shard", "active_since", "paused_assignee", "paused_deadline", "paused_started_at")
    found: list[dict[str, Any]] = []
    for status in (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.SUCCESS):
        await service.save_run(a_run(workflow_id="w", id="r", status=status, started_at=NOON))
        projection = (await service.run_document("w", "r").get()).to_dict()["projection"]
        found.append({name: projection[name] for name in own if name in projection})

    running, paused, ended = found
    assert ["active_shard", "active_since"] == list(running)
    assert 0 <= running["active_shard"] < 16
    assert {"paused_started_at": NOON, "paused_deadline": datetime.max.replace(tzinfo=UTC)} == paused
    assert {} == ended


@pytest.mark.parametrize("name", ["%zz", "%5F%5Fx", "a%2fb"])
async def test_what_is_no_workflow_is_not_listed(service: OpenedService, name: str) -> None:
    """A document beside the workflows', under a name that no workflow has, ends and repeats nothing."""
    await service.apply([an_event(workflow_id=workflow_id) for workflow_id in ("!", "b", "~")])
    await service.stats_document("b").parent.document(name).set({"workflow_id": "b", "total": 7})

    found: list[str] = []
    cursor = None
    for _ in range(3):
        page, cursor = await service.list_workflows(limit=1, start_after=cursor)
        found += [stats.workflow_id for stats in page]

    assert (["!", "b", "~"], None) == (found, cursor)


async def test_a_damaged_workflow_is_not_listed(
    service: OpenedService, caplog: pytest.LogCaptureFixture
) -> None:
    """A workflow whose stats something else damaged is skipped with a warning, and ends no page."""
    await service.apply([an_event(workflow_id=workflow_id) for workflow_id in ("a", "b", "c")])
    await service.stats_document("b").update({"by_status": "text"})

    first, cursor = await service.list_workflows(limit=1)
    second, end = await service.list_workflows(limit=1, start_after=cursor)

    assert (["a", "c"], None) == ([stats.workflow_id for stats in (*first, *second)], end)
    assert {"b"} == {
        vars(record)["workflow_id"]
        for record in caplog.records
        if vars(record).get("event") == "run_log_unreadable_stats"
    }


async def test_the_layout_of_the_stats(service: OpenedService) -> None:
    """A workflow's document has total, successful, and a count for each status there was."""
    await service.apply([*a_life("w", "r1"), *a_life("w", "r2", end=RunStatus.FAILED)])
    await service.save_run(a_run(workflow_id="w", id="r1", status=RunStatus.FAILED))

    snapshot = await service.stats_document("w").get()

    fields = snapshot.to_dict()
    assert snapshot.reference.path == "autopilot_runs/w"
    assert {
        "workflow_id": "w",
        "total": 2,
        "successful": 0,
        "by_status": {"failed": 2, "success": 0},
    } == {name: fields[name] for name in ("workflow_id", "total", "successful", "by_status")}
    assert {"workflow_id", "total", "successful", "by_status", "durations", "as_of"} == set(fields)


async def test_only_paused_runs_have_the_inbox_field(service: OpenedService) -> None:
    """The field that the inbox is an index on is there while a run is paused, and at no other time."""
    there: dict[RunStatus, bool] = {}
    for status in (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.SUCCESS):
        await service.save_run(a_run(workflow_id="w", id="r", status=status))
        fields = (await service.run_document("w", "r").get()).to_dict()
        there[status] = "paused_started_at" in fields["projection"]

    assert there == {RunStatus.RUNNING: False, RunStatus.PAUSED: True, RunStatus.SUCCESS: False}


async def test_an_update_leaves_nothing_old(service: OpenedService) -> None:
    """A run's update replaces every field whole: no key of an older payload or pause stays."""
    paused = a_run(
        workflow_id="w", id="r", status=RunStatus.PAUSED, trigger_data={"old": 1}, result={"old": 1}
    )
    ended = a_run(workflow_id="w", id="r", result={"new": 1}, pause=None)

    await service.save_run(paused)
    await service.save_run(ended)

    fields = (await service.run_document("w", "r").get()).to_dict()
    assert (json.loads(fields["trigger_data"]), json.loads(fields["result"])) == ({}, {"new": 1})
    assert fields["pause"] is None
    assert ended == await service.get_run("w", "r")


async def test_the_inbox_is_of_one_root_collection(service: OpenedService) -> None:
    """Runs paused in another root collection, such as a rebuild's, are not in the inbox."""
    other = FirestoreRunLogService(root_collection="autopilot_runs_2")
    await other.save_run(a_run(workflow_id="w", id="other", status=RunStatus.PAUSED))
    await service.save_run(a_run(workflow_id="w", id="own", status=RunStatus.PAUSED))

    inboxes = [[run.id for run in await one.get_pending_runs()] for one in (service, other)]
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
    "no projection map": {"projection": "text"},
    "no history": {"projection.history": ["text"]},
    "a moment out of range": {"projection.history": ['[1,1,"e","success",99999999999999999999,0]']},
    "too deep a history": {"projection.history": ["[" * 100_000]},
    "no version": {"projection.hlc": "text"},
    "an infinite version": {"projection.hlc": float("inf")},
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
async def test_what_cannot_be_read_is_skipped(service: OpenedService, spoil: dict[str, Any]) -> None:
    """A document that something else changed is named by `get_run`, and skipped by pages of any size."""
    for n in range(5):
        await service.apply([an_event(workflow_id="w", id=f"r{n}", started_at=NOON - timedelta(hours=n))])
    await service.run_document("w", "r2").update(spoil)

    with pytest.raises(UnreadableRunError, match="r2"):
        await service.get_run("w", "r2")

    for limit in (1, 2, 3, 4):
        page, cursor = await service.list_runs("w", limit=limit)
        walked = list(page)
        while cursor is not None:
            page, cursor = await service.list_runs("w", limit=limit, start_after=cursor)
            walked += page
        assert [run.id for run in walked] == ["r0", "r1", "r3", "r4"]


@pytest.mark.parametrize("spoil", [{"status": "no such"}, {"projection": "text"}])
async def test_what_cannot_be_merged_is_refused_alone(service: OpenedService, spoil: dict[str, Any]) -> None:
    """Events of a run whose stored head cannot be read are refused; the others of the batch are applied."""
    await service.apply([an_event(workflow_id="w", id="bad")])
    await service.run_document("w", "bad").update(spoil)
    other = OpenedService.from_env()
    events = [an_event(workflow_id="w", id=run_id) for run_id in ("good", "bad", "better")]

    with pytest.raises(WriteRefusedError, match="bad"):
        await other.apply(events)
    outcomes = await Projector(other).apply(events)
    await other.close()

    assert outcomes == [Outcome.APPLIED, Outcome.REJECTED, Outcome.APPLIED]
    assert await service.get_stats("w") == {"total": 3, "successful": 3}


async def test_a_document_without_a_projection_map(service: OpenedService) -> None:
    """A run that was written without versions can be read, and any event is newer than it."""
    started = a_run(workflow_id="w", id="r", status=RunStatus.RUNNING)
    await service.save_run(started)
    fields = (await service.run_document("w", "r").get()).to_dict()
    del fields["projection"]
    await service.run_document("w", "r").set({**fields, "trigger_data": {"native": [1]}})
    found = await service.get_run("w", "r")

    ended = an_event(workflow_id="w", id="r", hlc=1)
    outcomes = await service.apply([ended])

    assert started.model_copy(update={"trigger_data": {"native": [1]}}) == found
    assert outcomes == [Outcome.APPLIED]
    assert ended.run == await service.get_run("w", "r")
    assert await service.get_stats("w") == {"total": 1, "successful": 1}


@pytest.mark.parametrize("root", ["a/b", "a/b/c", "", ".", "..", "__x__"])
def test_a_root_collection_that_is_no_collection_is_refused(
    root: str, emulator_environment: Mapping[str, str]
) -> None:
    """A root collection that Firestore does not take, or that leads elsewhere, is refused at once."""
    assert emulator_environment

    with pytest.raises(ConfigurationError, match="root_collection"):
        FirestoreRunLogService(root_collection=root)
