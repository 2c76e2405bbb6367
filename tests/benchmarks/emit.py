"""What `emit` costs its caller: beside a traced span, a logged line and the vendor's own `publish`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Final, cast

from run_log.core import Settings
from run_log.pubsub import PubSubConnection, provision
from run_log.testing import FirestoreEmulator

from .report import Options, Report, Row, Sample, medians, number

DEAD: Final = {"PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}
CALLS: Final = 5_000
GROWTH_CALLS: Final = 100_000
TIMEOUT_SECONDS: Final = 120

SUBJECTS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "a span, BatchSpanProcessor": ("span", {}),
    "emit, broker up": ("emit", {}),
    "emit, no broker": ("emit", DEAD),
    "a log line, QueueHandler": ("log", {}),
    "PublisherClient.publish, broker up": ("publish", {}),
    "PublisherClient.publish, no broker": ("publish", DEAD),
}
"""What is measured, the baseline first: the probe's name for it, and its environment."""


def measure_latency(options: Options, emulator: FirestoreEmulator) -> Report:  # noqa: ARG001 - all are called alike
    """Time each subject's calls in a burst, each in a process of its own, one subject after another."""
    settings = Settings.from_env()
    provision(PubSubConnection.from_settings(settings), settings)
    samples: list[Sample] = []
    for _ in range(options.repetitions):
        sample: dict[str, float] = {}
        for what, (subject, environment) in SUBJECTS.items():
            figures = _probe("latency", subject, CALLS, environment)
            sample |= {f"{what} {name}": value for name, value in figures.items()}
            sample[f"{what} ratio"] = figures["p50"] / sample[f"{next(iter(SUBJECTS))} p50"]
        samples.append(sample)
    middle = medians(samples)
    names = ("ratio", "p50", "p99", "max")
    return Report(
        title="emit: one call, in microseconds",
        columns=["p50 x a span", "p50", "p99", "max"],
        rows=[
            Row(what=what, figures=[number(middle[f"{what} {name}"]) for name in names]) for what in SUBJECTS
        ],
        notes=[
            f"bursts of {CALLS:,} calls, a process for each subject; median of {options.repetitions}",
            "publish is handed a message that is encoded already; emit copies, checks and encodes a run",
        ],
    )


def measure_growth(options: Options, emulator: FirestoreEmulator) -> Report:  # noqa: ARG001 - all are called alike
    """Count what many calls without a broker leave behind."""
    count = GROWTH_CALLS // 10 if options.quick else GROWTH_CALLS
    rows: list[Row] = []
    for what, subject in (("emit", "emit"), ("PublisherClient.publish", "publish")):
        figures = _probe("growth", subject, count, DEAD)
        names = ("MiB", "threads", "raised", "us")
        rows.append(Row(what=what, figures=[number(figures[name]) for name in names]))
    return Report(
        title=f"emit x {count:,} with no broker: growth",
        columns=["MiB", "threads", "raised", "us a call"],
        rows=rows,
        notes=["the most seen while calling, once"],
    )


def _probe(kind: str, subject: str, count: int, environment: dict[str, str]) -> dict[str, float]:
    done = subprocess.run(  # noqa: S603 - this interpreter, this package
        [sys.executable, "-m", "tests.benchmarks.emit_probe", kind, subject, str(count)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what is logged about the missing broker
        timeout=TIMEOUT_SECONDS,
        check=True,
    )
    return cast("dict[str, float]", json.loads(done.stdout))
