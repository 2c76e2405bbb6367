from datetime import UTC, datetime, timedelta, timezone

import pytest

from run_log.core import InvalidArgumentError
from run_log.core.clock import HybridLogicalClock
from run_log.testing import ManualClock, sequential_ids


def test_a_manual_clock_stands_still() -> None:
    """Without an advance, two looks at the clock show the same."""
    clock = ManualClock()

    assert (clock.now(), clock.micros(), clock.monotonic()) == (
        clock.now(),
        clock.micros(),
        clock.monotonic(),
    )
    assert timedelta(0) == clock.now().utcoffset()


@pytest.mark.parametrize("by", [timedelta(minutes=1, microseconds=1), 60.000001])
def test_advancing_moves_every_face_of_the_clock(by: timedelta | float) -> None:
    """A timedelta and a number of seconds advance all three readings alike."""
    clock = ManualClock(datetime(1970, 1, 1, tzinfo=UTC))

    clock.advance(by)

    assert datetime(1970, 1, 1, 0, 1, 0, 1, tzinfo=UTC) == clock.now()
    assert 60_000_001 == clock.micros()
    assert 60.000001 == clock.monotonic()


def test_the_clock_shows_utc() -> None:
    """A start in another time zone is the same moment in UTC."""
    clock = ManualClock(datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))

    assert "2026-01-01T00:00:00+00:00" == clock.now().isoformat()


def test_the_clock_drives_a_hybrid_logical_clock() -> None:
    """Its microseconds are what a hybrid logical clock ticks by."""
    clock = ManualClock()
    hybrid = HybridLogicalClock(now=clock.micros)

    first = hybrid.tick()
    clock.advance(1)

    assert first + 1_000_000 == hybrid.tick()


def test_the_clock_never_goes_back() -> None:
    """A negative advance is refused."""
    with pytest.raises(InvalidArgumentError, match="turn the clock back"):
        ManualClock().advance(-1)


def test_a_naive_start_is_refused() -> None:
    """A start without a time zone is refused."""
    with pytest.raises(InvalidArgumentError, match="time zone"):
        ManualClock(datetime(2026, 1, 1))  # noqa: DTZ001  # what is refused


@pytest.mark.parametrize(("seconds", "passed"), [(86_400, 86_400.0), (-1, 0.0)])
async def test_sleeping_advances_the_clock_instead_of_waiting(seconds: float, passed: float) -> None:
    """A sleep of a day passes on the clock and nowhere else; a negative one is none."""
    clock = ManualClock()

    await clock.sleep(seconds)

    assert passed == clock.monotonic()


def test_sequential_ids_count_up() -> None:
    """Ids are numbered from 1 and sort in the order they were made."""
    new_id = sequential_ids()

    ids = [new_id() for _ in range(11)]

    assert ("event-000001", "event-000011") == (ids[0], ids[-1])
    assert sorted(ids) == ids


def test_sequences_are_independent() -> None:
    """Each function counts for itself, with its own prefix."""
    first, second = sequential_ids(), sequential_ids("message")

    assert ("event-000001", "message-000001") == (first(), second())
