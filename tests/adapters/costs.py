"""What recording costs: CPU time of the calling thread, recorded and not in turn, as medians.

It runs in a framework's environment, for the ``cost`` module of its adapter.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

from run_log.producer import default_emitter

Row = tuple[str, float, float]
"""What was measured, and its microseconds: without recording, and with it."""

WARMING = 20
"""The first ones import and connect."""


def medians(
    prepare: Callable[[bool], Callable[[], object]], times: int, *, warming: int = WARMING
) -> tuple[float, float]:
    """Return the medians of the microseconds that something takes: not recorded, and recorded.

    Args:
        prepare: Returns what is measured, recorded or not. That itself is not measured.
        times: How often.
        warming: How often before.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(times + warming):
        for is_recorded in (number % 2, 1 - number % 2):
            measured = prepare(bool(is_recorded))
            begun = time.thread_time()
            measured()
            if number >= warming:
                taken[is_recorded].append((time.thread_time() - begun) * 1e6)
    return median(taken[0]), median(taken[1])


def each_more(name: str, few: tuple[float, float], many: tuple[float, float], more: int) -> Row:
    """Return what each of *more* costs, by what *few* and *many* take."""
    return name, (many[0] - few[0]) / more, (many[1] - few[1]) / more


def main(framework: str, times: int, measure: Callable[[int], Iterable[Row]]) -> None:
    """Print a table of what *measure* finds, as often as the command line says, or *times*."""
    warnings.simplefilter("ignore")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else times

    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(RUN_LOG_BACKEND="sqlite", RUN_LOG_SQLITE_PATH=str(Path(folder, "runs.sqlite3")))
        rows = [f"| medians of {count} | {framework} alone | recorded | it adds |", "|---|---|---|---|"]
        for name, without, recorded in measure(count):
            more = recorded - without
            rows.append(
                f"| {name} | {without:,.0f} us | {recorded:,.0f} us | {more:,.0f} us, {more / without:.0%} |"
            )
        default_emitter().flush_sync(60)
        print(*rows, sep="\n")  # noqa: T201 - for who runs it
