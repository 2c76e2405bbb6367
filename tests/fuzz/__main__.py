"""Any number of inputs to all that reads foreign bytes: ``python -m tests.fuzz [--inputs N] [--seed S]``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.progress import track

from run_log.stores import InMemoryRunLogService

from .cursors import fill, listings, run_cursors
from .pipes import FuzzFailedError, run_bodies
from .readers import READERS, run_reader
from .rows import run_files, run_rows

INPUTS_A_FILE = 40
"""A whole file, damaged and read by everything, takes as long as so many other inputs."""


async def _cursors(numbers: Iterable[int], seed: int) -> Counter[str]:
    log = InMemoryRunLogService()
    await fill(log)
    return await run_cursors(numbers, seed=seed, among=await listings(log, watch=True))


def main() -> int:
    """Give inputs to every reader; return 0 if nothing came of them but values and errors of ours."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=2_000, help="how many for each reader; default 2000")
    parser.add_argument("--seed", type=int, default=0, help="of all; default 0")
    given = parser.parse_args()
    # A line for each dead letter says nothing here.
    logging.getLogger("run_log").setLevel(logging.ERROR)
    console = Console()
    begun = time.monotonic()
    counts = Counter[str]()
    try:
        for name in READERS:
            numbers = track(range(given.inputs), name, console=console)
            counts += run_reader(name, numbers, seed=given.seed)
        counts += run_rows(track(range(given.inputs), "rows", console=console), seed=given.seed)
        counts += asyncio.run(_cursors(track(range(given.inputs), "cursors", console=console), given.seed))
        numbers = track(range(given.inputs), "all the way", console=console)
        counts += run_bodies(numbers, seed=given.seed, count=given.inputs)
        files = track(range(given.inputs // INPUTS_A_FILE + 1), "files", console=console)
        counts += run_files(files, seed=given.seed)
    except FuzzFailedError as failed:
        console.print(str(failed), markup=False, highlight=False)
        return 1
    for what, count in sorted(counts.items()):
        console.print(f"{count:10,} {what}")
    seconds = time.monotonic() - begun
    console.print(f"{given.inputs / seconds:.0f} inputs a second to each; nothing else came of any")
    return 0


if __name__ == "__main__":
    sys.exit(main())
