"""Measure, beside baselines in the same run: ``python -m tests.benchmarks [--quick] [name ...]``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Final

from rich.console import Console

from run_log.testing import EmulatorNotFoundError, FirestoreEmulator, PubSubEmulator

from . import batch, emit, listing, pipe, projection, scaling
from .report import Options, Report, show

Benchmark = Callable[[Options, FirestoreEmulator], Report]

BENCHMARKS: Final[dict[str, Benchmark]] = {
    "emit": emit.measure_latency,
    "growth": emit.measure_growth,
    "projection": projection.measure,
    "pipe": pipe.measure,
    "scaling": scaling.measure,
    "batch": batch.measure,
    "listing": listing.measure,
}


def main() -> int:
    """Start both emulators, run what was asked for, print a table each; return 0 unless they are missing."""
    names, options = _arguments()
    console = Console()
    begun = time.monotonic()
    try:
        with FirestoreEmulator() as firestore, PubSubEmulator() as pubsub:
            os.environ.update({**firestore.environment, **pubsub.environment})
            os.environ["GOOGLE_CLOUD_PROJECT"] = "bench"
            console.print(
                f"{os.cpu_count()} cores, both emulators on this machine, Python {sys.version.split()[0]}"
            )
            for name in names:
                since = time.monotonic()
                show(console, BENCHMARKS[name](options, firestore))
                console.print(f"  {time.monotonic() - since:.0f} s", style="dim")
    except EmulatorNotFoundError as error:
        console.print(str(error), style="red")
        return 1
    console.print(f"{time.monotonic() - begun:.0f} s in all")
    return 0


def _arguments() -> tuple[list[str], Options]:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}; default all")
    parser.add_argument("--quick", action="store_true", help="once, with less load")
    parser.add_argument("--full", action="store_true", help="with the largest load")
    given = parser.parse_args()
    if unknown := set(given.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    return given.names or list(BENCHMARKS), Options(quick=given.quick, full=given.full)


if __name__ == "__main__":
    sys.exit(main())
