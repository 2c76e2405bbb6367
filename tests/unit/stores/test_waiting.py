from __future__ import annotations

from typing import Any

import pytest

from run_log.core import InvalidArgumentError
from run_log.stores._waiting import look_until


class Time:
    """A time that passes while somebody sleeps, and nothing else."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.sleeps: list[float] = []

    def now(self) -> float:
        """Return the time."""
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.sleeps.append(seconds)
        self.seconds += seconds


class Looks:
    """Finds something the given number of looks after the first."""

    def __init__(self, misses: int) -> None:
        self.left = misses
        self.count = 0

    async def __call__(self) -> str | None:
        """Look once."""
        self.count += 1
        self.left -= 1
        return "found" if self.left < 0 else None


async def test_what_is_there_costs_one_look() -> None:
    """What is there already is found by the first look; with no time to wait there is no other."""
    for misses, found in ((0, "found"), (1, None)):
        time, looks = Time(), Looks(misses)

        assert found == await look_until(looks, 0, sleep=time.sleep, now=time.now)
        assert (1, []) == (looks.count, time.sleeps)


async def test_waiting_is_less_and_less_often() -> None:
    """The waits between looks grow, up to a second each, so that a long wait costs few looks."""
    time, looks = Time(), Looks(10**6)

    assert await look_until(looks, 60, sleep=time.sleep, now=time.now) is None
    assert 160 == pytest.approx(time.seconds)
    assert 1.0 >= max(time.sleeps)
    assert 40 < looks.count < 400


async def test_the_last_look_is_at_the_end() -> None:
    """What comes in the last moment is seen: the time given ends with a look."""
    time = Time()

    async def look() -> str | None:
        return "found" if time.seconds >= 102 else None

    assert "found" == await look_until(look, 2, sleep=time.sleep, now=time.now)


@pytest.mark.parametrize("seconds", [-1, None, "1", True, float("nan")])
async def test_a_timeout_is_a_number_of_seconds(seconds: Any) -> None:
    """A timeout that is no number of seconds is an error before anything is looked at."""
    looks = Looks(0)

    with pytest.raises(InvalidArgumentError, match="pass seconds, 0 or more"):
        await look_until(looks, seconds)
    assert 0 == looks.count
