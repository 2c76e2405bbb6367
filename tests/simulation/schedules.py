"""Runs schedules, and says how to replay one in which an invariant did not hold."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable

from .record import Record
from .world import SOUND, Build, World

LAST_LINES = 40


class ScheduleFailedError(AssertionError):
    """An invariant did not hold in a schedule."""

    def __init__(self, seed: int, record: Record, error: BaseException) -> None:
        lines = "\n".join(record.lines[-LAST_LINES:])
        super().__init__(
            f"{lines}\nseed {seed}: {type(error).__name__}: {error}\n"
            f"replay it with: make simulate SEED={seed} N=1"
        )
        self.seed = seed


def run_schedules(
    seeds: Iterable[int], build: Build = SOUND, *, done: Callable[[], None] = lambda: None
) -> Counter[str]:
    """Run a schedule for each of *seeds*; return how often what happened in them.

    Args:
        seeds: Each decides all of its schedule.
        build: What projectors are made of.
        done: Called after each.

    Raises:
        ScheduleFailedError: An invariant did not hold; the message says where, and how to replay it.
    """
    counts: Counter[str] = Counter()
    if not gc.get_freeze_count():
        # A schedule makes rings of garbage; what was there before need not be looked through for each.
        gc.collect()
        gc.freeze()
    for seed in seeds:
        counts.update(run_schedule(seed, build).counts)
        done()
    return counts


def happened_in(seeds: Iterable[int]) -> Counter[str] | str:
    """Return how often what happened in the schedules of *seeds*, or how one failed: for another process."""
    try:
        return run_schedules(seeds)
    except ScheduleFailedError as failed:
        return str(failed)


def run_schedule(seed: int, build: Build = SOUND) -> Record:
    """Run one schedule; return what happened.

    Raises:
        ScheduleFailedError: See `run_schedules`.
    """
    world = World(seed, build)
    try:
        world.run()
    except Exception as error:
        raise ScheduleFailedError(seed, world.record, error) from error
    return world.record
