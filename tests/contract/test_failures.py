"""Failures in groups of the same error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from run_log.core import InvalidArgumentError, RunStatus
from run_log.stores import RunLog
from run_log.stores.failures import MAX_FAILURES
from run_log.testing import a_run, an_event

from .adapters import every_adapter, memory_alone
from .harness import Harness

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

# Of each failure: its workflow, its error type, its error. The first one started first.
FAILED = [
    ("v", "TimeoutError", "TimeoutError: no answer within 30 s\n  File a.py, line 3"),
    ("w", "KeyError", "KeyError: 'amount'"),
    ("w", None, ""),
    ("w", "KeyError", ""),
    ("v", "TimeoutError", "TimeoutError: no answer within 60 s\n  File b.py, line 4"),
    ("w", "TimeoutError", "TimeoutError: no answer within 60 s"),
    ("w", "KeyError", "KeyError: 'currency'"),
    ("v", None, ""),
    ("w", "KeyError", "KeyError: 'amount'"),
]


async def fill(harness: Harness) -> None:
    """Store the failures, and a success of each workflow."""
    failed = [
        an_event(
            workflow_id=workflow_id,
            id=f"r{number}",
            status=RunStatus.FAILED,
            error=error or None,
            error_type=error_type,
            trigger_data={"number": number},
            started_at=NOON + number * MINUTE,
        )
        for number, (workflow_id, error_type, error) in enumerate(FAILED)
    ]
    await harness.store.apply([*failed, *(an_event(workflow_id=name, id="good") for name in ("v", "w"))])


@every_adapter
async def test_failures_are_grouped(harness: Harness, service: RunLog) -> None:
    """Failures come in groups of a workflow, an error type and a text: the largest first, then the newest."""
    await fill(harness)

    everything = await service.list_failures()
    own = await service.list_failures("v", since=NOON + 4 * MINUTE)

    assert [
        ("w", "KeyError", "KeyError: 'amount'", 2, "r8"),
        ("v", "TimeoutError", "TimeoutError: no answer within # s", 2, "r4"),
        ("v", None, "", 1, "r7"),
        ("w", "KeyError", "KeyError: 'currency'", 1, "r6"),
        ("w", "TimeoutError", "TimeoutError: no answer within # s", 1, "r5"),
        ("w", "KeyError", "", 1, "r3"),
        ("w", None, "", 1, "r2"),
    ] == [(one.workflow_id, one.error_type, one.text, one.count, one.newest.id) for one in everything]
    assert [(None, 1, "r7"), ("TimeoutError", 1, "r4")] == [
        (one.error_type, one.count, one.newest.id) for one in own
    ]
    # A run of the list, without what a group does not show.
    run = await service.get_run("w", "r8")
    assert run
    assert run.model_copy(update={"trigger_data": {}}) == everything[0].newest


async def test_the_newest_failures_are_grouped(harness: Harness, service: RunLog) -> None:
    """Of more failures than are looked at, the newest are grouped."""
    await harness.store.apply(
        [
            an_event(
                a_run(
                    workflow_id=f"w{number % 4}",
                    id=f"r{number}",
                    status=RunStatus.FAILED,
                    error="old" if number < 30 else "new",
                    started_at=NOON + number * MINUTE,
                )
            )
            for number in range(MAX_FAILURES + 30)
        ]
    )

    groups = await service.list_failures()

    assert {"new"} == {one.text for one in groups}
    assert sum(one.count for one in groups) == MAX_FAILURES


@memory_alone
async def test_what_cannot_be_is_refused(service: RunLog) -> None:
    """A workflow without a name and a moment without an offset are errors."""
    with pytest.raises(InvalidArgumentError, match="workflow_id is ''"):
        await service.list_failures("")
    with pytest.raises(InvalidArgumentError, match=r"since is .*; pass an aware datetime"):
        await service.list_failures(since=datetime(2026, 3, 4))  # noqa: DTZ001 - it is naive
