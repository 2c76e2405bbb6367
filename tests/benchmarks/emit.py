"""What `emit` costs its caller: beside a traced span, a logged line and the vendor's own `publish`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, cast

from tests.emulator.tcp_proxy import TcpProxy

from run_log.core import Settings
from run_log.pubsub import PubSubConnection, provision
from run_log.testing import FirestoreEmulator

from .report import Options, Report, Row, Sample, medians, number

CALLS: Final = 5_000
GROWTH_CALLS: Final = 100_000
TIMEOUT_SECONDS: Final = 300
SLOW_SECONDS: Final = 0.2

STATES: Final = ("up", "slow", "dead", "never there")
"""Of the broker: it answers, takes `SLOW_SECONDS` a call, answers no more, or nobody listens."""

BASELINE: Final = "a span, BatchSpanProcessor"
SUBJECTS: Final[dict[str, tuple[str, str]]] = {
    BASELINE: ("span", "up"),
    **{f"emit, broker {state}": ("emit", state) for state in STATES},
    "emit with 10 steps, broker up": ("steps", "up"),
    "a log line, QueueHandler": ("log", "up"),
    **{f"PublisherClient.publish, broker {state}": ("publish", state) for state in STATES},
}
"""What is measured, the baseline first: the probe's name for it, and the broker's state."""


def measure_latency(options: Options, emulator: FirestoreEmulator) -> Report:  # noqa: ARG001 - all are called alike
    """Time each subject's calls in a burst, each in a process of its own, one subject after another."""
    samples: list[Sample] = []
    with _brokers() as environments:
        for _ in range(options.repetitions):
            sample: dict[str, float] = {}
            for what, (subject, state) in SUBJECTS.items():
                figures = _probe("latency", subject, CALLS, environments[state])
                sample |= {f"{what} {name}": value for name, value in figures.items()}
                sample[f"{what} ratio"] = figures["p50"] / sample[f"{BASELINE} p50"]
                sample[f"{what} spread"] = figures["p99"] / figures["p50"]
            samples.append(sample)
    middle = medians(samples)
    names = ("ratio", "spread", "p50", "p99", "max")
    return Report(
        title="emit: one call, in microseconds",
        columns=["p50 x a span", "p99 x p50", "p50", "p99", "max"],
        rows=[
            Row(what=what, figures=[number(middle[f"{what} {name}"]) for name in names]) for what in SUBJECTS
        ],
        notes=[
            f"bursts of {CALLS:,} calls, a process for each subject; median of {options.repetitions}",
            "publish is handed a message that is encoded already; emit copies a run",
        ],
    )


def measure_growth(options: Options, emulator: FirestoreEmulator) -> Report:  # noqa: ARG001 - all are called alike
    """Count what many calls leave behind, in each state of the broker."""
    count = GROWTH_CALLS // 10 if options.quick else GROWTH_CALLS
    rows: list[Row] = []
    names = ("MiB", "threads", "raised", "p50", "p99", "max")
    with _brokers() as environments:
        for what, subject in (("emit", "emit"), ("PublisherClient.publish", "publish")):
            for state in STATES:
                figures = _probe("growth", subject, count, environments[state])
                row = Row(what=f"{what}, broker {state}", figures=[number(figures[name]) for name in names])
                rows.append(row)
    return Report(
        title=f"{count:,} calls in a row: growth, and what a call took in microseconds",
        columns=list(names),
        rows=rows,
        notes=[
            "the most memory and threads seen while calling, once; a full buffer drops what is superseded"
        ],
    )


@contextmanager
def _brokers() -> Generator[dict[str, dict[str, str]]]:
    """Provide a broker in each of `STATES`: the environment that leads to it."""
    settings = Settings.from_env()
    provision(PubSubConnection.from_settings(settings), settings)
    host = os.environ["PUBSUB_EMULATOR_HOST"]
    with TcpProxy(host) as slow, TcpProxy(host) as dead:
        slow.delay(SLOW_SECONDS / 2)
        dead.black_hole()
        hosts = {"up": host, "slow": slow.host, "dead": dead.host, "never there": "127.0.0.1:1"}
        yield {state: {"PUBSUB_EMULATOR_HOST": hosts[state]} for state in STATES}


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
