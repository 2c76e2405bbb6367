"""The trace in the warehouse's table, and its views against our own fold."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta

import pytest
from tests.warehouse import Warehouse, check

from run_log.core import RunEvent, encode_event, utc_now

from .trace_file import read_trace, states
from .trace_replay import labelled, steps_of


@pytest.fixture(scope="module")
def warehouse() -> Iterator[Warehouse]:
    """Yield a warehouse without messages."""
    made = Warehouse()
    yield made
    made.close()


def test_the_trace_is_folded_alike(warehouse: Warehouse) -> None:
    """With repeats and in any order, every view over the trace equals the library's own fold."""
    runs = states(map(labelled, read_trace()))
    messages = [encode_event(RunEvent(run=run, steps=steps_of(run))) for run in runs]
    chance = random.Random(1)
    messages += chance.choices(messages, k=len(messages) // 3)
    chance.shuffle(messages)

    check(warehouse, messages, published_at=utc_now() + timedelta(minutes=1))
