"""Runs in pieces, as workers have them: joined in any way they are what all their events make of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_log.core import RunEvent
from run_log.core.law import FoldedRun, fold
from run_log.projector.beam.steps import decode_folded, encode_folded, folded, joined

from .core_strategies import clashing_events, deliveries, events, examples, small_events

one_run = (small_events(runs=1, max_size=30) | clashing_events(runs=1)).flatmap(
    lambda facts: st.tuples(st.just(facts), deliveries(facts))
)


def whole(facts: Sequence[RunEvent]) -> FoldedRun:
    """Return what *facts* make of their run, folded at once."""
    change = fold(None, facts)
    assert change.winner is not None
    return FoldedRun(event=change.winner, history=change.after.history)


@examples(100)
@given(one_run)
def test_pieces_join_to_the_whole(case: tuple[list[RunEvent], list[list[RunEvent]]]) -> None:
    """However events are dealt out, repeated, joined and joined again: the run is as if folded at once."""
    facts, shares = case
    workers = [joined([folded(event) for event in share]) for share in shares if share]

    assert whole(facts) == joined(workers)
    assert whole(facts) == joined([joined(workers[:1]), *workers[1:], *workers])


@pytest.mark.search
@examples(100)
@given(small_events(runs=1, min_size=60, max_size=80), st.integers(min_value=1, max_value=59))
def test_long_histories_join(facts: list[RunEvent], cut: int) -> None:
    """Of a run with more events than a history keeps, pieces join to the same newest ones."""
    pieces = [joined([folded(event) for event in part]) for part in (facts[:cut], facts[cut:])]

    assert whole(facts) == joined(pieces) == joined(pieces[::-1])


@pytest.mark.search
@examples(100)
@given(events, st.data())
def test_a_run_survives_the_way_between_workers(event: RunEvent, data: st.DataObject) -> None:
    """A run that is encoded and decoded is the same run, but for its event's trace."""
    others = data.draw(small_events(runs=1))
    run = FoldedRun(event=event, history=joined([folded(other) for other in others]).history)

    assert run.history == decode_folded(encode_folded(run)).history
    untraced = event.model_copy(update={"traceparent": None, "tracestate": None})
    assert untraced == decode_folded(encode_folded(run)).event
