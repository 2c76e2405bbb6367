from datetime import UTC, datetime, timedelta, timezone

import pytest

from run_log.core import InvalidArgumentError
from run_log.core.clock import HybridLogicalClock
from run_log.testing import ManualClock, sequential_ids


@pytest.mark.parametrize("by", [timedelta(minutes=1, microseconds=1), 60.000001])
def test_advancing_moves_every_face_of_the_clock(by: timedelta | float) -> None:
    """Nothing else moves it; a timedelta and a number of seconds advance all three readings alike."""
    clock = ManualClock(datetime(1970, 1, 1, tzinfo=UTC))
    assert (0, 0) == (clock.micros(), clock.monotonic())

    clock.advance(by)

    for _ in range(2):
        assert datetime(1970, 1, 1, 0, 1, 0, 1, tzinfo=UTC) == clock.now()
        assert (60_000_001, 60.000001) == (clock.micros(), clock.monotonic())


def test_the_clock_shows_utc() -> None:
    """A start in another time zone is the same moment in UTC; one without a time zone is refused."""
    clock = ManualClock(datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))

    assert "2026-01-01T00:00:00+00:00" == clock.now().isoformat() == ManualClock().now().isoformat()
    with pytest.raises(InvalidArgumentError, match="time zone"):
        ManualClock(datetime(2026, 1, 1))  # noqa: DTZ001  # what is refused


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


@pytest.mark.parametrize(("seconds", "passed"), [(86_400, 86_400.0), (-1, 0.0)])
async def test_sleeping_advances_the_clock_instead_of_waiting(seconds: float, passed: float) -> None:
    """A sleep of a day passes on the clock and nowhere else; a negative one is none."""
    clock = ManualClock()

    await clock.sleep(seconds)

    assert passed == clock.monotonic()


def test_sequential_ids_count_up() -> None:
    """Each function counts for itself, from 1, with its own prefix, in ids that sort as they were made."""
    new_id, other = sequential_ids(), sequential_ids("message")

    ids = [new_id() for _ in range(11)]

    assert ("event-000001", "event-000011", "message-000001") == (ids[0], ids[-1], other())
    assert sorted(ids) == ids
