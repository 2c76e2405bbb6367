"""Any number of schedules: ``python -m tests.simulation [--schedules N] [--seed S]``."""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.progress import track

from .schedules import ScheduleFailedError, run_schedules


def main() -> int:
    """Run schedules, and tell what happened in them; return 0 if every invariant held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=2_000, help="how many; default 2000")
    parser.add_argument("--seed", type=int, default=0, help="of the first; default 0")
    given = parser.parse_args()
    console = Console()
    seeds = range(given.seed, given.seed + given.schedules)
    begun = time.monotonic()
    try:
        counts = run_schedules(track(seeds, "schedules", console=console))
    except ScheduleFailedError as failed:
        console.print(str(failed), markup=False, highlight=False)
        return 1
    for what, count in sorted(counts.items()):
        console.print(f"{count:10,} {what}")
    console.print(f"{len(seeds) / (time.monotonic() - begun):.0f} schedules a second; every invariant held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
