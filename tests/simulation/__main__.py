"""Any number of schedules, on all processors: ``python -m tests.simulation [--schedules N] [--seed S]``."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter

from rich.console import Console
from rich.progress import track

from .schedules import happened_in

CHUNK = 25
"""Schedules that a process runs at a time."""


def main() -> int:
    """Run schedules, and tell what happened in them; return 0 if every invariant held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=2_000, help="how many; default 2000")
    parser.add_argument("--seed", type=int, default=0, help="of the first; default 0")
    given = parser.parse_args()
    console = Console()
    seeds = range(given.seed, given.seed + given.schedules)
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    begun = time.monotonic()
    counts = Counter[str]()
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as processes:
        ran = processes.imap_unordered(happened_in, chunks)
        for happened in track(ran, "schedules", total=len(chunks), console=console):
            if isinstance(happened, str):
                console.print(happened, markup=False, highlight=False)
                return 1
            counts += happened
    for what, count in sorted(counts.items()):
        console.print(f"{count:10,} {what}")
    console.print(f"{len(seeds) / (time.monotonic() - begun):.0f} schedules a second; every invariant held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
