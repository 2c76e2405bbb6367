from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .bugs import (
    AcknowledgesFirst,
    CountsDuplicates,
    LeavesOutPreconditions,
    RetriesBlindly,
    plant_any_clock,
    plant_bare_ids,
    plant_late_ties,
    plant_replaced_steps,
)
from .schedules import ScheduleFailedError, run_schedule, run_schedules
from .world import Build

pytestmark = pytest.mark.search

CHUNK = 250
CHUNKS = 8
ENOUGH = 300
"""Schedules within which a planted bug has to show."""

BUGS = {
    "ack before commit": Build(source=AcknowledgesFirst),
    "stats incremented on duplicates": Build(committer=CountsDuplicates),
    "a precondition left out": Build(documents=LeavesOutPreconditions),
    "a lost answer retried blindly": Build(documents=RetriesBlindly),
}

PLANTS = {
    "ties by arrival": plant_late_ties,
    "identity by id alone": plant_bare_ids,
    "any clock": plant_any_clock,
    "steps replaced": plant_replaced_steps,
}


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_whatever_happens(chunk: int) -> None:
    """In two thousand schedules of crashes, pauses and faults nothing is lost and nothing counts twice."""
    counts = run_schedules(range(chunk * CHUNK, (chunk + 1) * CHUNK))

    happened = {name for name, count in counts.items() if count}
    assert {
        "crashed",
        "paused",
        "replaced",
        "delivered again",
        "guess refused",
        "deadline exceeded",
        "expired",
        "store: answer lost",
        "store: aborted",
        "store: never arrives",
        "store: late",
    } <= happened


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_found(bug: str) -> None:
    """A projector with a bug fails in a schedule, and one without passes the very same."""
    with pytest.raises(ScheduleFailedError, match="ViolationError") as failed:
        run_schedules(range(ENOUGH), BUGS[bug])

    run_schedule(failed.value.seed)


@pytest.mark.parametrize("plant", PLANTS)
def test_bugs_planted_in_the_law_are_found(plant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A law with a bug breaks an invariant in a schedule, and without it the very same schedule holds."""
    with monkeypatch.context() as planted:
        PLANTS[plant](planted)
        with pytest.raises(ScheduleFailedError, match="ViolationError") as failed:
            run_schedules(range(ENOUGH))

    run_schedule(failed.value.seed)


def test_a_failure_says_how_to_replay_it() -> None:
    """A failure names its seed, what did not hold and the command; the replay fails alike, line by line."""
    with pytest.raises(ScheduleFailedError) as first:
        run_schedules(range(ENOUGH), BUGS["ack before commit"])
    with pytest.raises(ScheduleFailedError) as second:
        run_schedule(first.value.seed, BUGS["ack before commit"])

    assert str(first.value) == str(second.value)
    assert "acknowledged and lost" in str(first.value)
    assert f"make simulate SEED={first.value.seed} N=1" in str(first.value)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.process
def test_a_seed_replays_exactly(seed: int) -> None:
    """A seed gives the same schedule line by line, also in another process with other hashes."""
    program = (
        "import sys; from tests.simulation.schedules import run_schedule; "
        f"print('\\n'.join(run_schedule({seed}).lines))"
    )
    root = Path(__file__).parents[2]
    environ = {**os.environ, "PYTHONHASHSEED": "7"}

    lines = run_schedule(seed).lines
    elsewhere = subprocess.run(  # noqa: S603 - a program of our own
        [sys.executable, "-c", program], cwd=root, env=environ, capture_output=True, text=True, check=True
    )

    assert lines == run_schedule(seed).lines
    assert lines == elsewhere.stdout.splitlines()
