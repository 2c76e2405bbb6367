from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from run_log.core import RunStatus
from run_log.testing import an_event

from .harness import Harness

Metered = Callable[[], Counter[tuple[str, ...]]]
ANOMALIES = ("run_log.store.anomalies",)


async def test_steps_that_cannot_be_are_counted(harness: Harness, metered: Metered) -> None:
    """A step that breaks the state machine is counted once, in whatever batch it comes, and no other is."""
    running, ended, again, retried = (
        an_event(workflow_id="w", id="r", hlc=number, status=status, attempt=attempt)
        for number, (status, attempt) in enumerate(
            [(RunStatus.RUNNING, 1), (RunStatus.SUCCESS, 1), (RunStatus.RUNNING, 1), (RunStatus.RUNNING, 2)]
        )
    )
    before = metered()[ANOMALIES]

    await harness.store.apply([running, ended])
    sound = metered()[ANOMALIES] - before
    await harness.store.apply([again])
    await harness.store.apply([again, retried])

    assert (0, 1) == (sound, metered()[ANOMALIES] - before)
