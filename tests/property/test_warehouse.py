"""The warehouse's views against our own fold: whatever comes, in any order, however often."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.warehouse import Warehouse, check

from run_log.core import RunEvent, RunStatus, Step, StepStatus, TriggerType, WorkflowRun, encode_event

from .core_strategies import EPOCH, examples
from .warehouse_cases import HALVES, NO_EVENTS, PUBLISHED_AT, WHOLE, lives, rivals, written

pytestmark = pytest.mark.search


@pytest.fixture(scope="module")
def warehouse() -> Iterator[Warehouse]:
    """Yield a warehouse without messages."""
    made = Warehouse()
    yield made
    made.close()


@given(data=st.data(), events=lives())
@examples(25)
def test_whatever_comes_is_folded_alike(
    warehouse: Warehouse, data: st.DataObject, events: Sequence[RunEvent]
) -> None:
    """Runs, histories, answers, steps and counts of any schema version are those of the library's fold."""
    messages = [data.draw(written)(event) for event in events]
    strangers = [message for some in NO_EVENTS.values() for message in some]
    messages += data.draw(st.lists(st.sampled_from([*messages, *strangers]), max_size=4))

    check(warehouse, data.draw(st.permutations(messages)), published_at=PUBLISHED_AT)


def test_two_events_of_one_version(warehouse: Warehouse) -> None:
    """Where a faulty publisher says two things in one version, the same one counts as elsewhere."""
    events = rivals()

    for some in (events, events[::-1]):
        check(warehouse, list(map(encode_event, some)), published_at=PUBLISHED_AT)


def test_what_is_left_out(warehouse: Warehouse) -> None:
    """A message that states no event is left out, for the reason that a dead letter would have."""
    expected = [reason for reason, messages in NO_EVENTS.items() for _ in messages]
    messages = [message for some in NO_EVENTS.values() for message in some]

    check(warehouse, messages, published_at=PUBLISHED_AT)
    reasons = {int(row["message_id"]): row["reason"] for row in warehouse.view("left_out")}
    assert expected == [reasons[number] for number in range(len(messages))]


def test_a_step_of_an_attempt_before(warehouse: Warehouse) -> None:
    """A running step is cancelled if it was last told of before the attempt began, and not since."""
    told = [
        Step(key=f"v{version}", name="a step", status=StepStatus.RUNNING, started_at=EPOCH, version=version)
        for version in (4, 6)
    ]
    run = WorkflowRun(
        id="r",
        workflow_id="w",
        status=RunStatus.RUNNING,
        trigger_type=TriggerType.MANUAL,
        started_at=EPOCH,
        attempt=2,
    )
    events = [RunEvent(hlc=hlc, run=run, steps=tuple(told), is_progress=hlc > 5) for hlc in (5, 8)]

    check(warehouse, list(map(encode_event, events)), published_at=PUBLISHED_AT)
    assert {"v4": "cancelled", "v6": "running"} == {
        row["key"]: row["status"] for row in warehouse.view("steps")
    }


def test_half_a_surrogate_pair(warehouse: Warehouse) -> None:
    """A payload that no UTF-8 can hold costs the run nothing but that half of a character."""
    warehouse.load([encode_event(RunEvent(hlc=1, run=HALVES))], published_at=PUBLISHED_AT)

    (row,) = warehouse.view("runs")
    assert WHOLE == json.loads(row["result"])
