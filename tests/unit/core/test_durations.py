from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from run_log.core import RunStatus
from run_log.core.counters import (
    DAYS_KEPT,
    DURATION_BUCKETS,
    HOURS_KEPT,
    MAX_DURATION,
    RELATIVE_ERROR,
    RESOLUTION,
    Counted,
    Durations,
    Horizon,
    Scope,
    SummaryCounter,
    counters_of,
    duration_bucket,
    duration_micros,
    hour_of,
)
from run_log.testing import a_run

MICROSECOND = timedelta(microseconds=1)


def of(*micros: int) -> Durations:
    """Return the durations that are so many microseconds."""
    buckets: dict[int, int] = {}
    for each in micros:
        bucket = duration_bucket(each)
        buckets[bucket] = buckets.get(bucket, 0) + 1
    return Durations(count=len(micros), total=sum(micros) * MICROSECOND, buckets=buckets)


def test_every_duration_is_told_within_the_stated_error() -> None:
    """A quantile is at most 5 %, or 10 microseconds, from the duration that it stands for."""
    micros = [*range(3_000), *(int(1.001**power) for power in range(8_000, 33_400))]
    assert timedelta(days=3_000) < micros[-1] * MICROSECOND < MAX_DURATION

    for each in micros:
        estimate = of(each).p50
        assert estimate is not None
        error = abs(estimate - each * MICROSECOND)
        assert error <= max(each * MICROSECOND * RELATIVE_ERROR, RESOLUTION), each


def test_longer_durations_are_in_later_buckets() -> None:
    """Buckets are in the order of durations, and there are no more of them than is said."""
    buckets = [duration_bucket(int(1.01**power)) for power in range(3_500)]

    assert all(shorter <= longer for shorter, longer in pairwise(buckets))
    assert (0, DURATION_BUCKETS - 1) == (buckets[0], buckets[-1])


@pytest.mark.parametrize(
    ("micros", "bucket"), [(0, 0), (10, 0), (11, 1), (1_000, 51), (1_000_000, 120), (3_600_000_000, 202)]
)
def test_a_duration_has_one_bucket_for_ever(micros: int, bucket: int) -> None:
    """A duration is counted in the same bucket on every machine and by every version."""
    assert bucket == duration_bucket(micros)


def test_quantiles_are_of_the_nearest_rank() -> None:
    """A quantile is the shortest duration that so large a share of the runs took at most."""
    durations = of(*[1_000] * 19, 1_000_000)

    assert durations.p50 == durations.p95 == durations.quantile(0) == of(1_000).p50
    assert durations.p99 == durations.quantile(1) == of(1_000_000).p50
    assert durations.mean == timedelta(microseconds=(19 * 1_000 + 1_000_000) / 20)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_within_0_and_1(share: float) -> None:
    """A share that is none is an error."""
    with pytest.raises(ValueError, match="not within 0 and 1"):
        of(1).quantile(share)


def test_an_absurd_duration_counts_as_ten_years() -> None:
    """A duration of more than ten years counts as ten years, a negative one as what start and end say."""
    ten_years = MAX_DURATION // MICROSECOND
    run = a_run(status=RunStatus.SUCCESS)
    assert run.completed_at is not None

    assert ten_years == duration_micros(run.model_copy(update={"duration_ms": 1e300}))
    assert (run.completed_at - run.started_at) // MICROSECOND == duration_micros(
        run.model_copy(update={"duration_ms": -1.0})
    )


def test_what_a_clock_a_day_behind_reads_is_kept() -> None:
    """Every hour and day that a summary reads is kept by a machine whose clock is a day ahead."""
    midnight = datetime(2026, 3, 4, tzinfo=UTC)
    today, horizon = hour_of(midnight) // 24, Horizon.at(midnight)
    first_hour, first_day = 24 * (today - 1) - HOURS_KEPT + 1, today - 1 - DAYS_KEPT

    assert horizon.counts(SummaryCounter(Scope.HOUR, first_hour, "failed"))
    assert horizon.counts(SummaryCounter(Scope.DAY, first_day, "failed"))
    assert not horizon.counts(SummaryCounter(Scope.HOUR, first_hour - 24, "failed"))
    assert not horizon.counts(SummaryCounter(Scope.DAY, first_day - 1, "failed"))
    assert today + 1 == horizon.last_day


def test_a_run_is_counted_under_the_same_names_for_ever() -> None:
    """What one run adds has stayed under these names, so that it can be taken out by any later version."""
    horizon = Horizon(today=20_000)
    names = {"success": 1, "micros": 1_000, "b51": 1}
    for hour in (24 * horizon.first_hours, 24 * horizon.first_hours - 1, 24 * horizon.first_day, 5):
        expected = {("all", 0, name): count for name, count in names.items() if name != "success"}
        if hour >= 24 * horizon.first_day:
            expected |= {("day", hour // 24, name): count for name, count in names.items()}
        if hour >= 24 * horizon.first_hours:
            expected |= {("hour", hour, name): count for name, count in names.items()}

        assert expected == dict(counters_of(RunStatus.SUCCESS, Counted(1_000, hour), horizon))


def test_only_what_can_be_counted_is_read_as_a_counter() -> None:
    """A stored counter of another scope, name or time than runs can have is refused."""
    first, last = hour_of(datetime.min.replace(tzinfo=UTC)), hour_of(datetime.max.replace(tzinfo=UTC))
    for scope, slots in (("hour", (first, last)), ("day", (first // 24, last // 24)), ("all", (0, 0))):
        for slot in slots:
            assert (scope, slot, "b0") == SummaryCounter.stored(scope, slot, "b0")
    for scope, slot, name in (
        *(("hour", first - 1, "failed"), ("hour", last + 1, "failed")),
        *(("day", first // 24 - 1, "failed"), ("day", last // 24 + 1, "failed")),
        *(("week", 0, "failed"), ("all", 0, "lost"), ("all", 0, f"b{DURATION_BUCKETS}")),
    ):
        with pytest.raises(ValueError, match="is not"):
            SummaryCounter.stored(scope, slot, name)
