"""Ids beyond the bound: refused where they are handed over, escaped where somebody else published them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from run_log.core import (
    InvalidRunError,
    Message,
    PauseRequest,
    RunEvent,
    RunStatus,
    WorkflowRun,
    decode_event,
    encode_event,
)
from run_log.core.fields import STORED
from run_log.core.ids import MAX_ID_BYTES, bounded_id
from run_log.stores import RunLog
from run_log.testing import a_run, an_event

from .adapters import every_adapter
from .harness import Harness, ids, pages, walk

# Alike to the last character; as long as a document's id can be; longer; as long as ids ever could be.
LONG = [
    *(text + end for text in ("x" * 1_024, "/" * 1_500, "é" * 49_999) for end in "12"),
    "y" * 1_500,
]


def published(workflow_id: str, run_id: str, **run: Any) -> RunEvent:
    """Return what a run becomes that somebody else publishes under these ids."""
    fields = json.loads(encode_event(an_event(a_run(**run))).data)
    fields["run"] |= {"workflow_id": workflow_id, "id": run_id}
    return decode_event(Message(data=json.dumps(fields).encode()))


def as_earlier_versions_had_it(workflow_id: str, run_id: str, **run: Any) -> RunEvent:
    """Return the event of a run as earlier versions took and stored it, whatever its ids' length."""
    event = an_event(a_run(**run))
    fields = {**dict(event), "run": {**dict(event.run), "workflow_id": workflow_id, "id": run_id}}
    return RunEvent.model_validate(fields, context=STORED)


@every_adapter
async def test_a_run_with_a_long_id_is_not_saved(service: RunLog) -> None:
    """A run whose id is longer than the bound is refused with the limit, and nothing is stored."""
    for field in ("id", "workflow_id"):
        with pytest.raises(InvalidRunError, match="at most 1,024"):
            await service.save_run({**dict(a_run()), field: "x" * 1_025})

    assert ([], None) == await service.list_workflows()


async def test_what_others_publish_under_long_ids_is_found(harness: Harness, service: RunLog) -> None:
    """What is published under any ids is found by them, and by those it is stored as; none is another's."""
    keys = [("w", text) for text in LONG] + [(text, "r") for text in LONG] + [(LONG[0], LONG[1])]
    events = [published(*key, result={"n": number}) for number, key in enumerate(keys)]
    await harness.store.apply([*events, *events[::-1]])

    for key, event in zip(keys, events, strict=True):
        stored = tuple(map(bounded_id, key))
        assert stored == event.key
        assert all(len(text.encode()) <= MAX_ID_BYTES for text in stored)
        for workflow_id, run_id in (key, event.key):
            assert event.run == await service.get_run(workflow_id, run_id)
            assert event.run == await service.wait_for(workflow_id, run_id, event, timeout=0)
            assert 1 == len(await service.get_history(workflow_id, run_id))
    assert sorted(bounded_id(text) for text in LONG) == sorted(ids((await service.list_runs("w"))[0]))
    for text in LONG:
        for name in (text, bounded_id(text)):
            total = 1 + (text == LONG[0])
            assert total == (await service.get_stats(name))["total"]
            assert total == (await service.get_summary(name)).total
            assert total == len([run for page in await walk(service, name, 1) for run in page])
            assert total == await service.count_runs(name)
            assert await service.get_latest_run(name) is not None
            assert await service.get_as_of(name) is not None
    assert await service.get_run("w", "x" * 1_024 + "3") is None
    assert ([], None) == await service.list_runs("x" * 1_024 + "3")


@pytest.mark.parametrize("name", [str, bounded_id], ids=["as published", "as stored"])
@every_adapter
async def test_what_others_publish_under_long_ids_can_be_answered(
    harness: Harness, service: RunLog, name: Callable[[str], str]
) -> None:
    """A paused run that somebody published under a long id is answered by either of its ids."""
    pause: dict[str, Any] = {"status": RunStatus.PAUSED, "pause": PauseRequest(reason="pay?")}
    await harness.store.apply([published("w", LONG[0], **pause)])

    answer = await service.resume("w", name(LONG[0]), answered_by="mei")

    assert (bounded_id(LONG[0]), RunStatus.RUNNING) == (answer.id, answer.status)


async def test_what_earlier_versions_stored_is_found_by_its_name(harness: Harness, service: RunLog) -> None:
    """Runs that earlier versions stored under longer ids are found, listed and counted by them, whole."""
    running: dict[str, Any] = {"status": RunStatus.RUNNING}
    events = [as_earlier_versions_had_it("w", text, **running) for text in LONG]
    events += [as_earlier_versions_had_it(text, f"r{n}", **running) for text in LONG for n in range(3)]
    await harness.store.apply(events)

    for event in events:
        assert event.run == await service.get_run(*event.key)
        assert (event.version,) == tuple(one.version for one in await service.get_history(*event.key))
        assert event.run == await service.wait_for(*event.key, event.version, timeout=0)
    assert sorted(LONG) == sorted(ids((await service.list_runs("w"))[0]))
    assert sorted([*LONG, "w"]) == sorted(one.workflow_id for one in (await service.list_workflows())[0])
    for text in LONG:
        assert [["r2"], ["r1"], ["r0"]] == [ids(page) for page in await walk(service, text, 1)]
        assert {"total": 3, "successful": 0} == await service.get_stats(text)


async def test_what_comes_later_is_another_workflow(harness: Harness, service: RunLog) -> None:
    """A name means what is stored under it; what is published by it since then has its escaped name."""
    before = as_earlier_versions_had_it(LONG[0], LONG[1])
    after = published(LONG[0], LONG[2])
    await harness.store.apply([before])
    await harness.store.apply([after])

    assert (before.run, after.run) == (
        await service.get_run(LONG[0], LONG[1]),
        await service.get_run(LONG[0], LONG[2]),
    )
    assert [before.run] == (await service.list_runs(LONG[0]))[0]
    assert [after.run] == (await service.list_runs(bounded_id(LONG[0])))[0]


async def test_a_long_answer_is_whose_it_is(harness: Harness, service: RunLog) -> None:
    """Whoever answers by a longer name than is kept answers as what it is kept as."""
    pause = PauseRequest(reason="pay?", assignee="x" * 2_000)
    await harness.store.apply([an_event(workflow_id="w", id="r", status=RunStatus.PAUSED, pause=pause)])

    answer = await service.resume("w", "r", answered_by="y" * 2_000)

    assert answer.pause is not None
    assert (bounded_id("x" * 2_000), bounded_id("y" * 2_000)) == (
        answer.pause.assignee,
        answer.pause.answered_by,
    )


async def test_an_old_run_with_a_long_id_takes_no_answer(harness: Harness, service: RunLog) -> None:
    """A run that waits, stored under a longer id, is asked for, and its answer refused with the limit."""
    pause = PauseRequest(reason="pay?", assignee="mei")
    event = as_earlier_versions_had_it("w", LONG[0], status=RunStatus.PAUSED, pause=pause)
    await harness.store.apply([event])

    with pytest.raises(InvalidRunError, match="at most 1,024"):
        await service.resume("w", LONG[0], answered_by="mei")
    waiting: list[WorkflowRun] = [one.run for one in (await service.list_pending(assignee="mei"))[0]]
    assert [event.run] == waiting == await service.get_pending_runs()


async def test_who_earlier_versions_asked_is_found_by_a_long_name(harness: Harness, service: RunLog) -> None:
    """Runs for which a longer name is asked are found by it, as it was stored and as it is stored now."""
    name, other = "m" * 2_000 + "1", "m" * 2_000 + "2"
    events: list[RunEvent] = []
    for number, who in enumerate((name, other, name, other)):
        event = an_event(id=f"old-{number}", status=RunStatus.PAUSED, pause=PauseRequest())
        fields = {**dict(event), "run": {**dict(event.run), "pause": {"reason": "?", "assignee": who}}}
        events.append(RunEvent.model_validate(fields, context=STORED))
        now = PauseRequest(assignee=who)
        events.append(an_event(id=f"new-{number}", status=RunStatus.PAUSED, pause=now))
    await harness.store.apply(events)

    for who, numbers in ((name, (0, 2)), (other, (1, 3))):
        walked = [one.run.id for (one,) in await pages(service.list_pending, assignee=who, limit=1)]
        assert sorted([f"{kind}-{n}" for n in numbers for kind in ("old", "new")], reverse=True) == walked
