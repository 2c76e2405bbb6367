from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from run_log.core import RunEvent, RunStatus
from run_log.core.clock import micros_of
from run_log.core.law import newest_event
from run_log.projector.imports.found import imported_event
from run_log.stores import InMemoryRunLogService
from run_log.testing import an_event

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
seconds = st.integers(0, 3)


@st.composite
def imports(draw: st.DrawFn) -> RunEvent:
    """Draw a state of one of two runs that another system recorded."""
    begun = NOON + timedelta(seconds=draw(seconds))
    fields = {
        "workflow_id": "w",
        "id": draw(st.sampled_from("ab")),
        "status": draw(st.sampled_from(RunStatus)),
        "trigger_type": "manual",
        "started_at": begun,
        "completed_at": draw(st.none() | seconds.map(lambda number: begun + timedelta(seconds=number))),
        "error": draw(st.sampled_from([None, "no line 7"])),
    }
    return imported_event(fields, [], redact=lambda _run: None)


@st.composite
def records(draw: st.DrawFn) -> RunEvent:
    """Draw a state of one of these runs that run-log recorded."""
    at = NOON + timedelta(seconds=draw(seconds), microseconds=draw(st.integers(0, 2)))
    status = draw(st.sampled_from(RunStatus))
    return an_event(
        workflow_id="w",
        id=draw(st.sampled_from("ab")),
        status=status,
        hlc=micros_of(at),
        event_id=str(draw(st.uuids())),
    )


@given(imports(), records())
def test_an_import_never_beats_what_was_recorded_at_its_moment_or_later(
    imported: RunEvent, recorded: RunEvent
) -> None:
    """A state recorded at the moment of an imported one or later is newer; before an imported end, older."""
    moment = micros_of(imported.occurred_at)
    newest = newest_event([imported, recorded])

    if recorded.hlc >= moment:
        assert newest is recorded
    elif imported.status.is_terminal:
        assert newest is imported


LIVES = st.lists(imports() | records(), min_size=1, max_size=8, unique_by=lambda each: each.event_id)


@settings(max_examples=50)
@given(LIVES, st.randoms())
async def test_imports_and_records_in_any_order_end_alike(events: list[RunEvent], chance: Random) -> None:
    """Imported and recorded states, in any order, any parts, with repeats, end in the same runs."""
    shuffled = [*events, *chance.choices(events, k=4)]
    chance.shuffle(shuffled)
    one, other = InMemoryRunLogService(), InMemoryRunLogService()
    await one.apply(events)
    for start in range(0, len(shuffled), 3):
        await other.apply(shuffled[start : start + 3])

    runs = [(await log.list_runs("w"))[0] for log in (one, other)]
    assert runs[0] == runs[1]
    for run in runs[0]:
        assert await one.get_history(*run.key) == await other.get_history(*run.key)
    succeeded = sum(run.status is RunStatus.SUCCESS for run in runs[0])
    for log in (one, other):
        assert {"total": len(runs[0]), "successful": succeeded} == await log.get_stats("w")
