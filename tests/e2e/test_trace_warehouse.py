"""The trace in the warehouse's table, and its views against our own fold."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta

import pytest
from tests.warehouse import Warehouse, check

from run_log.core import RunEvent, encode_event, utc_now

from .trace_file import read_trace, states
from .trace_replay import labelled


@pytest.fixture(scope="module")
def warehouse() -> Iterator[Warehouse]:
    """Yield a warehouse without messages."""
    made = Warehouse()
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(2))
def test_the_trace_is_folded_alike(warehouse: Warehouse, seed: int) -> None:
    """With repeats and in any order, every view over the trace equals the library's own fold."""
    messages = [encode_event(RunEvent(run=run)) for run in states(map(labelled, read_trace()))]
    chance = random.Random(seed)
    messages += chance.choices(messages, k=len(messages) // 3)
    chance.shuffle(messages)

    check(warehouse, messages, published_at=utc_now() + timedelta(minutes=1))
