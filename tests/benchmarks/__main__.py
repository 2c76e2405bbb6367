"""Measure, beside baselines in the same run: ``python -m tests.benchmarks [--quick] [name ...]``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from rich.console import Console

from run_log.testing import EmulatorNotFoundError, FirestoreEmulator, PubSubEmulator

from . import (
    batch,
    dashboard,
    dashboard_live,
    emit,
    listing,
    openlineage,
    pipe,
    projection,
    reading,
    scaling,
    spool,
    sqlite,
    startup,
)
from .report import Options, Report, show

Benchmark = Callable[[Options, FirestoreEmulator], Report]

FULL_MEMORY: Final = "6g"
"""Most that an emulator's heap takes with the largest load: a million stored runs need about four, and
what was published is kept after it was acknowledged."""

BENCHMARKS: Final[dict[str, Benchmark]] = {
    "emit": emit.measure_latency,
    "growth": emit.measure_growth,
    "projection": projection.measure,
    "pipe": pipe.measure,
    "scaling": scaling.measure_load,
    "stored": scaling.measure_stored,
    "processes": scaling.measure_processes,
    "batch": batch.measure,
    "listing": listing.measure,
    "reading": reading.measure,
    "sqlite": sqlite.measure,
    "startup": startup.measure,
    "dashboard": dashboard.measure,
    "dashboard-live": dashboard_live.measure,
    "openlineage": openlineage.measure,
    "spool": spool.measure,
}


def main() -> int:
    """Run what was asked for, print a table each; return 0 unless the emulators are missing."""
    names, options = _arguments()
    console = Console()
    console.print(f"{os.cpu_count()} cores, both emulators on this machine, Python {sys.version.split()[0]}")
    os.environ["GOOGLE_CLOUD_PROJECT"] = "bench"
    begun = time.monotonic()
    # As it is now, without the hosts of emulators that are set below.
    environ = dict(os.environ)
    try:
        for name in names:
            since = time.monotonic()
            show(console, _measure(BENCHMARKS[name], options, environ))
            console.print(f"  {time.monotonic() - since:.0f} s", style="dim")
    except EmulatorNotFoundError as error:
        console.print(str(error), style="red")
        return 1
    console.print(f"{time.monotonic() - begun:.0f} s in all")
    return 0


def _measure(benchmark: Benchmark, options: Options, environ: Mapping[str, str]) -> Report:
    """Run *benchmark* with emulators of its own: what another left in their memory is not measured."""
    memory = FULL_MEMORY if options.full else None
    with (
        FirestoreEmulator(memory=memory, environ=environ) as firestore,
        PubSubEmulator(memory=memory, environ=environ) as pubsub,
    ):
        os.environ.update({**firestore.environment, **pubsub.environment})
        return benchmark(options, firestore)


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
