"""Whatever the order, the repeats, the grouping and the number of writers: stores end in the same state."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from run_log.core import Outcome, RunEvent
from run_log.testing import FirestoreEmulator

from .core_strategies import clashing_events, deliveries, examples, scaled, small_events
from .store_folds import OpenStores, expected_of, found_in, memory_stores, sqlite_stores, use_firestore

pytestmark = pytest.mark.search

events_and_batches = small_events(max_size=20).flatmap(
    lambda facts: st.tuples(st.just(facts), deliveries(facts))
)

clashes_and_batches = clashing_events(max_size=16).filter(bool).flatmap(deliveries)
"""Different events under one id, and in one version: what no emitter of ours makes."""

on_the_emulator = settings(
    max_examples=scaled(15),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


async def apply_in_turn(open_stores: OpenStores, batches: Sequence[Sequence[RunEvent]]) -> list[Outcome]:
    """Apply *batches* one after another through services that know nothing of each other; check the end."""
    facts = [event for batch in batches for event in batch]
    expected = expected_of(facts)
    async with open_stores() as services:
        outcomes = [
            outcome
            for number, batch in enumerate(batches)
            for outcome in await services[number % len(services)].apply(batch)
        ]
        found = [await found_in(service, expected) for service in services]

    assert [expected] * len(services) == found
    return outcomes


async def apply_at_once(open_stores: OpenStores, batches: Sequence[Sequence[RunEvent]]) -> list[Outcome]:
    """Apply *batches* all at once through services that know nothing of each other; check the end."""
    expected = expected_of([event for batch in batches for event in batch])
    async with open_stores() as services:
        outcomes = await asyncio.gather(
            *(services[number % len(services)].apply(batch) for number, batch in enumerate(batches))
        )
        found = await found_in(services[0], expected)

    assert expected == found
    return [outcome for answers in outcomes for outcome in answers]


embedded = pytest.mark.parametrize("open_stores", [memory_stores, sqlite_stores], ids=["memory", "sqlite"])


@embedded
@examples(100)
@given(drawn=events_and_batches)
def test_embedded_stores_merge(
    open_stores: OpenStores, drawn: tuple[list[RunEvent], list[list[RunEvent]]]
) -> None:
    """Any order, repeats and grouping, by writers in turn, end in the newest states and exact stats."""
    facts, batches = drawn

    outcomes = asyncio.run(apply_in_turn(open_stores, batches))

    assert sum(map(len, batches)) == len(outcomes)
    assert len(outcomes) - len(facts) == outcomes.count(Outcome.DUPLICATE)


@embedded
@examples(45)
@given(drawn=events_and_batches)
def test_embedded_stores_merge_at_once(
    open_stores: OpenStores, drawn: tuple[list[RunEvent], list[list[RunEvent]]]
) -> None:
    """Batches of several writers at once end in the same state, none lost, none twice."""
    facts, batches = drawn

    outcomes = asyncio.run(apply_at_once(open_stores, batches))

    assert len(outcomes) - len(facts) == outcomes.count(Outcome.DUPLICATE)


@embedded
@examples(70)
@given(batches=clashes_and_batches)
def test_embedded_stores_merge_clashing_events(
    open_stores: OpenStores, batches: list[list[RunEvent]]
) -> None:
    """Different events under one id end in the same state, payload and stats in any order."""
    asyncio.run(apply_in_turn(open_stores, batches))


@pytest.mark.emulator
@on_the_emulator
@given(batches=clashes_and_batches)
def test_firestore_merges_clashing_events(
    batches: list[list[RunEvent]], firestore_emulator: FirestoreEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Firestore, different events under one id end in the same state, payload and stats in any order."""
    asyncio.run(apply_in_turn(use_firestore(firestore_emulator, monkeypatch), batches))


@pytest.mark.emulator
@on_the_emulator
@given(drawn=events_and_batches)
def test_firestore_merges(
    drawn: tuple[list[RunEvent], list[list[RunEvent]]],
    firestore_emulator: FirestoreEmulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In Firestore, any order, repeats and grouping, by writers that take turns, end in the same state."""
    facts, batches = drawn

    outcomes = asyncio.run(apply_in_turn(use_firestore(firestore_emulator, monkeypatch), batches))

    assert len(outcomes) - len(facts) == outcomes.count(Outcome.DUPLICATE)


@pytest.mark.emulator
@on_the_emulator
@given(drawn=events_and_batches)
def test_firestore_merges_at_once(
    drawn: tuple[list[RunEvent], list[list[RunEvent]]],
    firestore_emulator: FirestoreEmulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In Firestore, batches of several writers at once end in the same state, none lost, none twice."""
    facts, batches = drawn

    outcomes = asyncio.run(apply_at_once(use_firestore(firestore_emulator, monkeypatch), batches))

    assert len(outcomes) - len(facts) == outcomes.count(Outcome.DUPLICATE)
