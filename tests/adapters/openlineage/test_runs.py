"""Whatever the order in which events of OpenLineage come, and however often, the runs are the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.producer.transports import logged

from run_log.adapters.openlineage import recorder
from run_log.adapters.openlineage.events import Told, told_by
from run_log.adapters.openlineage.recorder import Recorder
from run_log.adapters.openlineage.runs import event_of, told_of
from run_log.core import RunRef, RunStatus, StoreUnavailableError, WorkflowRun
from run_log.producer import Redaction
from run_log.producer._store_transport import StoreTransport
from run_log.stores import InMemoryRunLogService, RunRecord
from run_log.testing import a_run

from .kit import NOW, an_event, emitter_to, lines, parent, post_all, receiver, tags

BEGUN = datetime(2026, 3, 1, 10, tzinfo=UTC)


def _told(*events: dict[str, Any]) -> list[Told]:
    return [told for event in events if (told := told_by(event, NOW))]


async def _recorded(*events: dict[str, Any]) -> WorkflowRun:
    log = InMemoryRunLogService()
    async with receiver(log) as client:
        await post_all(client, *events)
    run = await log.get_run("n/j", "r")
    assert run is not None
    return run


async def test_a_run() -> None:
    """An end has what its start has said, and when that was."""
    run = await _recorded(
        an_event(parent=parent("p"), tags=tags(team="billing")),
        an_event("COMPLETE", "2026-03-01T10:00:05.5Z", tags=tags(rows="7")),
    )

    assert (RunStatus.SUCCESS, "openlineage") == (run.status, run.trigger_type)
    assert (BEGUN, BEGUN + timedelta(seconds=5.5), 5_500) == (
        run.started_at,
        run.completed_at,
        run.duration_ms,
    )
    assert ({"team": "billing", "rows": "7"}, RunRef("n/dag", "p")) == (run.labels, run.parent)


async def test_a_failure() -> None:
    """A failed run has the message of its error, and the exception's name."""
    failure = {"message": "x.DiskError: full", "programmingLanguage": "JAVA"}
    run = await _recorded(an_event(), an_event("FAIL", "2026-03-01T10:01:00Z", errorMessage=failure))

    assert (RunStatus.FAILED, "x.DiskError: full", "x.DiskError") == (run.status, run.error, run.error_type)


@pytest.mark.parametrize("end", ["COMPLETE", "FAIL", "ABORT"])
@pytest.mark.parametrize("others", [["START"], ["RUNNING"], ["START", "RUNNING", "OTHER"]])
async def test_of_one_moment_the_end_holds(end: str, others: list[str]) -> None:
    """Where a clock ticks in seconds, the end of a short run is later than the rest of it."""
    found = {(await _recorded(*map(an_event, order))).status for order in permutations([end, *others])}

    assert {told.status for told in _told(an_event(end))} == found


@pytest.mark.parametrize("end", ["COMPLETE", "FAIL", "ABORT"])
async def test_other_reopens_nothing(end: str) -> None:
    """OTHER after the end adds to the run, and the run stays ended."""
    ended = await _recorded(an_event(), an_event(end, "2026-03-01T10:01:00Z"))
    later = an_event("OTHER", "2026-03-01T11:00:00Z", tags=tags(rows="7"), parent=parent())
    run = await _recorded(an_event(), an_event(end, "2026-03-01T10:01:00Z"), later)

    assert {**dict(ended), "labels": {"rows": "7"}, "parent": RunRef("n/dag", "p")} == dict(run)


async def test_other_alone() -> None:
    """A run of which no status is known shows as running since then, and any status is later."""
    log = InMemoryRunLogService()
    async with receiver(log) as client:
        await post_all(client, an_event("OTHER", tags=tags(a="1")), an_event("OTHER", "2026-03-01T11:00:00Z"))
        before = await log.get_record("n/j", "r")
        await post_all(client, an_event("COMPLETE", "2026-03-01T10:30:00Z"))
        after = await log.get_record("n/j", "r")

    assert before is not None
    assert after is not None
    assert (RunStatus.RUNNING, BEGUN, ()) == (before.run.status, before.run.started_at, before.history)
    assert [RunStatus.SUCCESS] == [line.status for line in after.history]
    assert (RunStatus.SUCCESS, {"a": "1"}, BEGUN) == (
        after.run.status,
        after.run.labels,
        after.run.started_at,
    )


async def test_running_is_no_transition() -> None:
    """A run that says again and again that it is running fills no history, and is not stale."""
    log = InMemoryRunLogService()
    async with receiver(log) as client:
        await post_all(client, an_event(), an_event("OTHER", tags=tags(a="1")))
        await post_all(
            client, *(an_event("RUNNING", f"2026-03-01T10:{minute:02}:00Z") for minute in range(60))
        )
        await post_all(client, an_event())
    history = await log.get_history("n/j", "r")
    stale, _ = await log.list_stale(timedelta(hours=1), now=BEGUN + timedelta(hours=1))

    assert [RunStatus.RUNNING] == [line.status for line in history]
    assert [] == stale


@pytest.mark.parametrize("file", ["spark.jsonl", "task.jsonl", "stream.jsonl"])
async def test_files_in_any_order(file: str) -> None:
    """The events of a file make the same run in each order."""
    found: list[tuple[WorkflowRun | None, dict[str, int]]] = []
    for order in permutations(lines(file)):
        log = InMemoryRunLogService()
        async with receiver(log) as client:
            await post_all(client, *order)
        (run,), _ = await log.list_runs(None)
        found.append((run, await log.get_stats(run.workflow_id)))

    assert [found[0]] * len(found) == found


_MOMENTS = st.integers(0, 3).map(lambda second: f"2026-03-01T10:00:0{second}Z")
_FACETS = st.fixed_dictionaries(
    {},
    optional={
        "parent": st.sampled_from(["p", "q"]).map(parent),
        "tags": st.dictionaries(st.sampled_from("abc"), st.sampled_from("12")).map(
            lambda found: tags(**found)
        ),
        "processing_engine": st.just({"name": "spark", "version": "3"}),
        "errorMessage": st.sampled_from(["x.AError: a", "b"]).map(lambda text: {"message": text}),
    },
)


def _event(kind: str | None, at: str, run_id: str, facets: dict[str, Any]) -> dict[str, Any]:
    return an_event(kind, at, run_id=run_id, **facets)


_EVENTS = st.builds(
    _event,
    st.sampled_from(["START", "RUNNING", "COMPLETE", "FAIL", "ABORT", "OTHER", None]),
    _MOMENTS,
    st.sampled_from("rs"),
    _FACETS,
)


class _Blind(InMemoryRunLogService):
    """Reads nothing: a projector has not come to anything yet."""

    async def get_record(self, workflow_id: str, run_id: str, *, payloads: bool = True) -> RunRecord | None:
        """See `RunLogReader`."""


async def _ends(batches: Sequence[Sequence[Told]], *, is_new: bool, is_blind: bool) -> dict[str, object]:
    """Return the runs and stats after *batches*; *is_new* is whether a new process takes each."""
    log = InMemoryRunLogService()
    read = _Blind() if is_blind else log
    with emitter_to(StoreTransport(lambda: log)) as emitter:
        recorders = [Recorder(lambda: emitter, lambda: read, redaction=Redaction()) for _ in batches]
        for batch, recorder in zip(batches, recorders, strict=True):
            await (recorder if is_new else recorders[0]).record(batch)
    runs, _ = await log.list_runs("n/j")
    return {**{run.id: run for run in runs}, "": await log.get_stats("n/j")}


@pytest.mark.search
@pytest.mark.parametrize(("is_new", "is_blind"), [(False, False), (True, False), (False, True)])
@settings(max_examples=60)
@given(data=st.data())
def test_any_order_and_any_repeat(data: st.DataObject, is_new: bool, is_blind: bool) -> None:  # noqa: FBT001 - a case
    """Events in any order, with repeats, end where each once in the order of their times does.

    So it is if each is taken by another process, which reads the run log, and if nothing can be read yet and
    one process takes them all.
    """
    events = data.draw(st.lists(_EVENTS, min_size=1, max_size=6))
    repeats = data.draw(st.lists(st.sampled_from(events), max_size=4))
    shuffled = data.draw(st.permutations([*events, *repeats]))
    told = sorted(_told(*events), key=lambda each: each.version)

    expected = asyncio.run(_ends([[each] for each in told], is_new=False, is_blind=False))
    cut = data.draw(st.integers(0, len(shuffled)))
    batches = [_told(*shuffled[:cut]), *([each] for each in _told(*shuffled[cut:]))]
    found = asyncio.run(_ends(batches, is_new=is_new, is_blind=is_blind))

    assert expected == found


async def test_a_repeat_changes_nothing() -> None:
    """An event that is sent again adds nothing, not even to the history."""
    log = InMemoryRunLogService()
    async with receiver(log) as client:
        for _ in range(3):
            await post_all(client, an_event(tags=tags(a="1")), an_event("COMPLETE", "2026-03-01T10:01:00Z"))
    history = await log.get_history("n/j", "r")

    assert [RunStatus.RUNNING, RunStatus.SUCCESS] == [line.status for line in history]


async def test_what_others_said_stays() -> None:
    """What a run has that events of OpenLineage do not tell, such as its result, stays."""
    log = InMemoryRunLogService()
    await log.save_run(
        a_run(
            id="r",
            workflow_id="n/j",
            status=RunStatus.RUNNING,
            started_at=BEGUN,
            result={"rows": 7},
            trigger_type="cron",
        )
    )
    async with receiver(log) as client:
        await post_all(client, an_event("OTHER", "2026-03-01T09:00:00Z", tags=tags(a="1")))
    run = await log.get_run("n/j", "r")

    assert run is not None
    assert ({"rows": 7}, "cron", {"a": "1"}) == (run.result, run.trigger_type, run.labels)
    assert timedelta(hours=1) == BEGUN - run.started_at


async def test_a_next_attempt_is_let_alone() -> None:
    """A run that somebody has begun anew keeps its start, whatever late events of the first attempt say."""
    log = InMemoryRunLogService()
    await log.save_run(a_run(id="r", workflow_id="n/j", status=RunStatus.RUNNING, started_at=NOW, attempt=2))
    async with receiver(log) as client:
        await post_all(client, an_event("FAIL", tags=tags(a="1")), an_event("OTHER", tags=tags(b="1")))
    record = await log.get_record("n/j", "r")

    assert record is not None
    assert (RunStatus.RUNNING, NOW, {}) == (record.run.status, record.run.started_at, record.run.labels)
    assert [(1, RunStatus.FAILED), (2, RunStatus.RUNNING)] == [
        (line.attempt, line.status) for line in record.history
    ]


async def test_secrets() -> None:
    """Secrets in labels and errors are replaced, and are not news each time that they come again."""
    log = InMemoryRunLogService()
    one, other = ({"api_key": value, "team": "a"} for value in ("s3cr3t", "other"))
    failure = {"message": "login with password=hunter2"}
    for _ in range(3):
        async with receiver(log) as client:
            await post_all(client, an_event("FAIL", tags=tags(**one), errorMessage=failure))
            await post_all(client, an_event("START", "2026-03-01T09:59:00Z", tags=tags(**other)))
    record = await log.get_record("n/j", "r")

    assert record is not None
    assert {"api_key": "[redacted]", "team": "a"} == record.run.labels
    assert "hunter2" not in str(record.run.error)
    assert 3 == len(record.history)


async def test_the_most_labels() -> None:
    """Of more labels than a run has the first by name are kept, whatever came first."""
    many = [an_event("OTHER", tags=tags(**{f"t{number:02}": "x"})) for number in range(25)]
    one, other = await _recorded(*many, an_event()), await _recorded(an_event(), *reversed(many))

    assert [f"t{number:02}" for number in range(20)] == sorted(one.labels)
    assert one == other


def test_many_corrections() -> None:
    """A run that is corrected more often than an event's id has room for goes on to be."""
    newest, _ = told_of([], _told(an_event("COMPLETE"))[0])
    for second in range(150, 0, -1):
        moment = (BEGUN - timedelta(seconds=200 - second)).isoformat()
        before = newest
        newest, _ = told_of([newest], _told(an_event("OTHER", moment))[0])
        assert newest.version > before.version

    assert (RunStatus.SUCCESS, BEGUN) == (newest.run.status, newest.run.completed_at)
    assert BEGUN - timedelta(seconds=199) == newest.run.started_at


async def test_what_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    """Where the run log cannot be read, the event is recorded all the same, and the log says so."""

    class Away(InMemoryRunLogService):
        async def get_record(
            self, workflow_id: str, run_id: str, *, payloads: bool = True
        ) -> RunRecord | None:
            raise StoreUnavailableError(f"away: {workflow_id} {run_id} {payloads}")

    log = InMemoryRunLogService()
    with emitter_to(StoreTransport(lambda: log)) as emitter:
        recorder = Recorder(lambda: emitter, Away, redaction=Redaction())
        await recorder.record(_told(an_event()))

    assert await log.get_run("n/j", "r") is not None
    assert ["r"] == [line["run_id"] for line in logged(caplog, "run_log_openlineage_not_read")]


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many runs are remembered, the last ones."""
    monkeypatch.setattr(recorder, "MAX_REMEMBERED", 3)
    log = InMemoryRunLogService()
    with emitter_to(StoreTransport(lambda: log)) as emitter:
        recording = Recorder(lambda: emitter, lambda: log, redaction=Redaction())
        await recording.record(_told(*(an_event(run_id=str(number)) for number in [0, 1, 2, 3, 0, 4])))

    remembered = recording._remembered  # pyright: ignore[reportPrivateUsage] - it cannot be seen
    assert ["3", "0", "4"] == [run_id for _, run_id in remembered]


async def test_what_the_run_log_has() -> None:
    """The newest event of a stored run is read with its version, whether it is a transition or none."""
    log = InMemoryRunLogService()
    async with receiver(log) as client:
        await post_all(client, an_event(), an_event("RUNNING", "2026-03-01T10:01:00Z"))
    record = await log.get_record("n/j", "r")

    assert record is not None
    event = event_of(record)
    assert (record.version, True) == (event.version, event.is_progress)
    assert BEGUN + timedelta(minutes=1) == event.occurred_at
