from __future__ import annotations

from run_log.core.backoff import Backoff


def test_each_failure_doubles_the_wait_up_to_the_longest() -> None:
    """Each failure doubles the limit of the wait, from the first to the longest."""
    backoff = Backoff(0.5, 3.0)

    assert [0.5, 1.0, 2.0, 3.0, 3.0] == [backoff.limit(failures) for failures in range(1, 6)]


def test_a_wait_after_very_many_failures_is_the_longest() -> None:
    """The limit stays a number however often something fails."""
    assert Backoff(0.5, 3.0).limit(100_000) == 3.0


def test_a_wait_is_random_between_the_shortest_and_the_limit() -> None:
    """A wait is drawn between the shortest and the limit."""
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return (low + high) / 2

    assert Backoff(1.0, 8.0).seconds(2, uniform) == 1.0
    assert Backoff(1.0, 8.0).seconds(3, uniform, shortest=1.0) == 2.5
    assert asked == [(0.0, 2.0), (1.0, 4.0)]


def test_waits_differ() -> None:
    """Without a source of chance given, waits are random and within the limit."""
    waits = {Backoff(1.0, 8.0).seconds(4) for _ in range(20)}

    assert len(waits) > 1
    assert all(0 <= wait <= 8 for wait in waits)
