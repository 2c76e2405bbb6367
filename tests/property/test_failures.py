from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from run_log.core import RunStatus, WorkflowRun
from run_log.stores.failures import grouped, masked
from run_log.testing import a_run

from .core_strategies import anything, examples

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)

errors = st.sampled_from([None, "", "no amount", "no 1 of 7", "no 22 of 3\nat x", "no", "\n"]) | st.text(
    anything
)
kinds = st.tuples(st.sampled_from(["v", "w"]), st.sampled_from([None, "KeyError", "Error"]), errors)


def failures(found: list[tuple[str, str | None, str | None]]) -> list[WorkflowRun]:
    """Return failures with these workflows, error types and errors, newest first."""
    return [
        a_run(
            workflow_id=workflow_id,
            id=f"r{number}",
            status=RunStatus.FAILED,
            error=error,
            error_type=error_type,
            started_at=NOON - number * timedelta(minutes=1),
        )
        for number, (workflow_id, error_type, error) in enumerate(found)
    ]


@examples(150)
@given(st.lists(kinds, max_size=30))
def test_groups_are_all_failures(found: list[tuple[str, str | None, str | None]]) -> None:
    """Each failure is in one group: that of its workflow, its error type and its text, masked."""
    runs = failures(found)

    groups = grouped(runs)

    expected = Counter((run.workflow_id, run.error_type, masked(run.error)) for run in runs)
    assert expected == {(one.workflow_id, one.error_type, one.text): one.count for one in groups}
    assert len(expected) == len(groups)
    assert [(-one.count, runs.index(one.newest)) for one in groups] == sorted(
        (-one.count, runs.index(one.newest)) for one in groups
    )
    for one in groups:
        same = [run for run in runs if (run.workflow_id, run.error_type) == (one.workflow_id, one.error_type)]
        assert one.newest == next(run for run in same if masked(run.error) == one.text)


@examples(150)
@given(st.text(anything), st.integers(min_value=0), st.integers(min_value=0), st.uuids(), st.uuids())
def test_numbers_and_ids_split_no_group(
    text: str, number: int, other: int, one: object, another: object
) -> None:
    """Errors that differ in a number and an id only are one text, which masking leaves as it is."""
    found = {masked(f"no {number} of {one}: {text}"), masked(f"no {other} of {another}: {text}")}

    assert 1 == len(found)
    assert found == set(map(masked, found))
