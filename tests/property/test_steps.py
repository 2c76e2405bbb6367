"""Steps and progress: whatever the order, the repeats and the grouping, a run ends in the same of both."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_log.core import Message, RunEvent, decode_event, encode_event
from run_log.core import steps as core_steps
from run_log.core.law import FoldedRun, RunHead, fold
from run_log.core.steps import (
    MAX_STEP_BYTES,
    Step,
    fitted,
    in_order,
    joined_steps,
    step_from_record,
    step_from_text,
    step_text,
)
from run_log.projector.beam.steps import decode_folded, encode_folded
from run_log.testing import FirestoreEmulator

from .core_strategies import (
    anything,
    deliveries,
    examples,
    json_values,
    project,
    small_event,
    stepped_events,
    steps,
)
from .store_folds import OpenStores, expected_of, memory_stores, sqlite_stores, steps_of, use_firestore
from .test_store_merging import apply_at_once, apply_in_turn, on_the_emulator

pytestmark = pytest.mark.search

drawn = stepped_events().filter(bool).flatmap(lambda facts: st.tuples(st.just(facts), deliveries(facts)))


def _as_progress(event: RunEvent, is_progress: bool) -> RunEvent:  # noqa: FBT001 - hypothesis passes it so
    return event.model_copy(update={"is_progress": is_progress})


progress_clashes = st.lists(
    st.builds(
        _as_progress,
        st.builds(
            small_event,
            st.just(1),
            hlc=st.integers(min_value=0, max_value=1),
            inferred=st.booleans(),
            content=st.integers(min_value=0, max_value=7),
        ),
        st.booleans(),
    ),
    min_size=2,
    max_size=6,
)
"""Events of one running run in two versions, as only a faulty publisher makes them."""
embedded = pytest.mark.parametrize("open_stores", [memory_stores, sqlite_stores], ids=["memory", "sqlite"])


@examples(200)
@given(drawn, st.integers(min_value=1, max_value=3))
def test_the_law(given_: tuple[list[RunEvent], list[list[RunEvent]]], most: int) -> None:
    """Heads end the same, with the newest steps by an independent count, however few are kept."""
    events, delivered = given_
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core_steps, "MAX_STEPS", most)
        heads, stats = project(delivered)
        again, stats_at_once = project([events])

    assert (again, stats_at_once) == (heads, stats)
    expected = expected_of(events)
    for key, head in heads.items():
        own = [event for event in events if event.key == key]
        assert steps_of(own, most) == list(in_order(head.steps))
        assert expected.histories[key] == [(line.version, line.status) for line in head.history]
        assert max(event.version for event in own) == head.version


@examples(200)
@given(stepped_events(runs=1).filter(bool).flatmap(deliveries))
def test_folded_runs_merge_as_their_events_do(delivered: list[list[RunEvent]]) -> None:
    """Parts of a run that were folded elsewhere, and sent as bytes, merge into the head of all its events."""
    merged: RunHead | None = None
    for part in filter(None, delivered):
        change = fold(None, part)
        assert change.winner is not None
        folded = FoldedRun(event=change.winner, history=change.after.history, steps=change.after.steps)
        folded = decode_folded(encode_folded(folded))
        merged = fold(merged, [folded.event], earlier=folded.history, earlier_steps=folded.steps).after

    assert fold(None, [event for part in delivered for event in part]).after == merged


@examples(200)
@given(progress_clashes.flatmap(lambda facts: st.tuples(st.just(facts), deliveries(facts))))
def test_progress_of_one_version(given_: tuple[list[RunEvent], list[list[RunEvent]]]) -> None:
    """Of events of one version that only say how far a run is, the same one wins, whatever comes first."""
    events, delivered = given_
    heads, _ = project(delivered)

    assert project([events])[0] == heads
    asyncio.run(apply_in_turn(memory_stores, delivered))
    asyncio.run(apply_in_turn(sqlite_stores, delivered[:4]))


@embedded
@examples(60)
@given(drawn=drawn)
def test_embedded_stores(open_stores: OpenStores, drawn: tuple[list[RunEvent], list[list[RunEvent]]]) -> None:
    """Stores end in the same runs, histories, steps and counts, by writers in turn."""
    asyncio.run(apply_in_turn(open_stores, drawn[1]))


def test_firestore(firestore_emulator: FirestoreEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Firestore does too, by writers that know nothing of each other, in turn and at once."""
    open_stores = use_firestore(firestore_emulator, monkeypatch)

    @on_the_emulator
    @given(drawn)
    def check(facts: tuple[list[RunEvent], list[list[RunEvent]]]) -> None:
        asyncio.run(apply_in_turn(open_stores, facts[1]))
        asyncio.run(apply_at_once(open_stores, facts[1]))

    check()


@examples(200)
@given(stepped_events())
def test_the_wire(events: list[RunEvent]) -> None:
    """Steps and progress come back equal."""
    for event in events:
        read = decode_event(Message(data=encode_event(event).data))
        assert (event.steps, event.is_progress) == (read.steps, read.is_progress)


@examples(300)
@given(
    steps,
    st.text(anything, max_size=300),
    st.none() | st.text(anything, max_size=300),
    st.dictionaries(st.text(anything, max_size=20), json_values, max_size=6),
)
def test_any_step_fits(step: Step, name: str, error: str | None, attributes: dict[str, object]) -> None:
    """Whatever a step has, its text is bounded, and read as it was written; so is its record."""
    record = {**step.to_json(), "name": name, "error": error, "attributes": attributes}
    read = step_from_record(record)

    assert len(step_text(read)) <= MAX_STEP_BYTES
    assert read == step_from_text(step_text(read)) == step_from_record(read.to_json()) == fitted(read)
    assert (read.key, read.version, read.status) == (step.key, step.version, step.status)


@examples(200)
@given(st.lists(steps, max_size=8), st.lists(steps, max_size=8), st.lists(steps, max_size=8))
def test_a_join(a: list[Step], b: list[Step], c: list[Step]) -> None:
    """Joining is associative and commutative, and repeats change nothing, also where few are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core_steps, "MAX_STEPS", 3)
        both = joined_steps(a, b)

        assert joined_steps(b, a) == both
        assert joined_steps(both, c) == joined_steps(a, joined_steps(b, c))
        assert joined_steps(both, both, a) == both
