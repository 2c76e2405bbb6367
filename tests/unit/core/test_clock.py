from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from run_log.core import WriteRefusedError
from run_log.core.clock import (
    EPOCH,
    MAX_AHEAD,
    MAX_HLC,
    MAX_RUNS_AHEAD,
    MICROSECOND,
    HybridLogicalClock,
    epoch_micros,
    micros_of,
    moment_of,
)

from .builders import make_event


@pytest.mark.parametrize(
    ("machine", "readings"),
    [([100, 100, 100], [100, 101, 102]), ([100, 50, 99, 200], [100, 101, 102, 200])],
    ids=["stands still", "goes back"],
)
def test_readings_increase_whatever_the_machine_clock_does(machine: list[int], readings: list[int]) -> None:
    """Readings never repeat, and are not set back."""
    moments = iter(machine)
    clock = HybridLogicalClock(lambda: next(moments))

    assert [clock.tick() for _ in machine] == readings


def test_a_reading_is_past_what_was_observed() -> None:
    """After another process's reading was observed, the next one is greater; an old one changes nothing."""
    clock = HybridLogicalClock(lambda: 100)
    clock.observe(5_000)
    clock.observe(3)

    assert clock.tick() == 5_001


@pytest.mark.parametrize("hlc", [2**61, MAX_HLC - 1, MAX_HLC, 10**30])
def test_an_absurd_reading_does_not_use_up_the_clock(hlc: int) -> None:
    """One event from the far end of time does not stop a process that observes it from making events."""
    clock = HybridLogicalClock(lambda: 100)
    clock.observe(hlc)
    readings = [clock.tick() for _ in range(3)]

    assert sorted(set(readings)) == readings
    assert [make_event(hlc=reading).hlc for reading in readings] == readings


YEARS = 10 * 365 * 86_400 * 1_000_000


def test_a_clock_follows_for_a_minute_and_no_further() -> None:
    """What is less than a minute ahead of the machine is followed; what is further moves nothing."""
    clock = HybridLogicalClock(lambda: 100)
    clock.observe(100 + MAX_AHEAD, ("w", "ahead"))
    unmoved = clock.last

    clock.observe(99 + MAX_AHEAD)

    assert (0, 99 + MAX_AHEAD) == (unmoved, clock.last)
    assert 100 + MAX_AHEAD == clock.tick(("w", "other"))


def test_only_the_run_that_is_ahead_is_stamped_ahead() -> None:
    """What is said of a run that was read far ahead is just past it, again and again; all else stays here."""
    clock = HybridLogicalClock(lambda: 100)
    clock.observe(YEARS, ("w", "ahead"))
    clock.observe(YEARS - 5, ("w", "ahead"))

    ahead = [clock.tick(("w", "ahead")), clock.tick(("w", "ahead"))]

    assert [YEARS + 1, YEARS + 2] == ahead
    assert (100, 101) == (clock.tick(("w", "other")), clock.tick())
    assert (YEARS + 2, 101) == (clock.seen(("w", "ahead")), clock.seen(("w", "other")))


@pytest.mark.parametrize("now", [YEARS - 1, YEARS, YEARS + 1, YEARS + 50])
def test_time_catches_up_with_what_was_ahead(now: int) -> None:
    """Once the machine's time is past a run that was ahead, the run is stamped by it, as all others are."""
    machine = [100]
    clock = HybridLogicalClock(lambda: machine[0])
    clock.observe(YEARS, ("w", "ahead"))
    machine[0] = now

    reading = clock.tick(("w", "ahead"))

    assert max(now, YEARS + 1) == reading
    assert now + (now > YEARS) == clock.tick()


def test_few_runs_ahead_are_remembered() -> None:
    """Of runs that are ahead so many are remembered, those that were read last; memory stays bounded."""
    clock = HybridLogicalClock(lambda: 100)
    for number in [*range(MAX_RUNS_AHEAD), 0, MAX_RUNS_AHEAD]:
        clock.observe(YEARS, ("w", str(number)))

    assert (YEARS, 0, YEARS) == tuple(clock.seen(("w", run)) for run in ("0", "1", "2"))


def test_nothing_comes_after_the_last_version() -> None:
    """Of a run that is stored in the last version there is nothing more can be said, and why is said."""
    clock = HybridLogicalClock(lambda: 100)
    clock.observe(MAX_HLC - 2, ("w", "r"))

    assert MAX_HLC < 2**63  # as databases hold integers
    assert MAX_HLC - 1 == clock.tick(("w", "r"))
    for _ in range(2):
        with pytest.raises(WriteRefusedError, match=r"run 'r' of workflow 'w' .* as its next attempt"):
            clock.tick(("w", "r"))
    assert 100 == clock.tick(("w", "other"))


def test_threads_never_share_a_reading() -> None:
    """Several threads that tick and observe one clock get distinct readings, each thread's increasing."""
    clock = HybridLogicalClock(lambda: 100)

    def read(_: int) -> list[int]:
        readings = list[int]()
        for _ in range(2_000):
            readings.append(clock.tick())
            clock.observe(readings[-1])
        return readings

    with ThreadPoolExecutor(max_workers=8) as pool:
        read_by_thread = list(pool.map(read, range(8)))

    assert len({reading for readings in read_by_thread for reading in readings}) == 8 * 2_000
    assert all(sorted(readings) == readings for readings in read_by_thread)


def test_the_machine_clock_is_read_in_microseconds() -> None:
    """The default source is the epoch's microseconds."""
    before = time.time_ns() // 1_000
    micros = epoch_micros()

    assert before <= micros <= time.time_ns() // 1_000


@pytest.mark.parametrize(
    "moment",
    [
        EPOCH,
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime(9999, 1, 1, tzinfo=UTC) - MICROSECOND,
    ],
)
def test_a_moment_comes_back_exactly_from_its_microseconds(moment: datetime) -> None:
    """Every microsecond of the years 1 to 9999 is kept. There is no datetime beyond."""
    micros = micros_of(moment)

    assert moment == moment_of(micros)
    assert timedelta(microseconds=micros) == moment - datetime(1970, 1, 1, tzinfo=UTC)
    with pytest.raises(OverflowError):
        moment_of(micros_of(datetime.max.replace(tzinfo=UTC)) + 1)


@pytest.mark.parametrize("hlc", [-1, MAX_HLC])
def test_a_reading_out_of_range_makes_no_event(hlc: int) -> None:
    """An event's clock reading is refused outside of 0 to below `MAX_HLC`."""
    with pytest.raises(ValidationError, match="hlc"):
        make_event(hlc=hlc)
