"""Any number of bodies through all decoders: ``python -m tests.fuzz [--bodies N] [--seed S]``."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from rich.console import Console
from rich.progress import track

from .pipes import FuzzFailedError, run_bodies


def main() -> int:
    """Send bodies, and tell what came of them; return 0 if nothing but events and dead letters did."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--bodies", type=int, default=2_000, help="how many; default 2000")
    parser.add_argument("--seed", type=int, default=0, help="of all; default 0")
    given = parser.parse_args()
    # A line for each dead letter says nothing here.
    logging.getLogger("run_log").setLevel(logging.ERROR)
    console = Console()
    begun = time.monotonic()
    try:
        numbers = track(range(given.bodies), "bodies", console=console)
        counts = run_bodies(numbers, seed=given.seed, count=given.bodies)
    except FuzzFailedError as failed:
        console.print(str(failed), markup=False, highlight=False)
        return 1
    for what, count in sorted(counts.items()):
        console.print(f"{count:10,} {what}")
    seconds = time.monotonic() - begun
    console.print(f"{given.bodies / seconds:.0f} bodies a second; nothing else came of any")
    return 0


if __name__ == "__main__":
    sys.exit(main())
