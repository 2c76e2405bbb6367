"""How long a command takes until it shows its help, beside an interpreter that does nothing."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from typing import Final

from run_log.testing import FirestoreEmulator

from .report import Options, Report, Row, Sample, in_rounds, number

CALLS: Final = 5

_RUN: Final = "from run_log.console import main; main()"
CASES: Final = {
    "python -c pass": ["-c", "pass"],
    "run-log --help": ["-c", _RUN, "--help"],
    "run-log runs list --help": ["-c", _RUN, "runs", "list", "--help"],
    "import google.cloud.firestore": ["-c", "import google.cloud.firestore"],
}


def measure(options: Options, emulator: FirestoreEmulator) -> Report:
    """Start each of them, in turns."""
    del emulator  # nothing of Google's is asked
    figures = in_rounds(list(CASES), options.repetitions * CALLS, _sample)
    nothing = figures["python -c pass"]
    return Report(
        title="until a command shows its help",
        columns=["ms", "x nothing", "CPU: ms", "CPU: x nothing"],
        rows=[
            Row(
                what=what,
                figures=[
                    number(taken["wall"]),
                    number(taken["wall"] / nothing["wall"]),
                    number(taken["cpu"]),
                    number(taken["cpu"] / nothing["cpu"]),
                ],
            )
            for what, taken in figures.items()
        ],
        notes=[f"median of {options.repetitions * CALLS} starts of each, in turns"],
    )


def _sample(what: str) -> Sample:
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(  # noqa: S603 - our own interpreter on our own text
        [sys.executable, *CASES[what]], check=True, stdout=subprocess.DEVNULL, env=dict(os.environ)
    )
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": 1_000 * wall, "cpu": 1_000 * cpu}
