"""One subject of the emit benchmark in a process of its own; prints its figures as JSON.

``python -m tests.benchmarks.emit_probe {latency|growth} {emit|steps|span|log|publish} COUNT``
"""

from __future__ import annotations

import importlib
import json
import logging
import logging.handlers
import os
import queue
import resource
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from run_log.core import RunEvent, RunStatus, Settings, encode_event, utc_now
from run_log.core.clock import PROCESS_CLOCK
from run_log.producer import RunEventEmitter
from run_log.producer._capture import Checked
from run_log.producer._steps import StepBook, StepScope
from run_log.testing import a_run

from .report import percentile

Call = Callable[[], object]

WARM_UP: Final = 500
SETTLE_SECONDS: Final = 0.3
STEPS: Final = 10

RUN: Final = a_run(
    id="1000genome-chameleon-4ch-100k-001:frequency_ID0000064",
    workflow_id="1000genome/frequency",
    status=RunStatus.SUCCESS,
    trigger_data={"program": "frequency", "arguments": ["-c", "20", "-pop", "AFR"], "parents": ["a", "b"]},
    result={"avgCPU": 57.3813, "readBytes": None, "outputFiles": ["chr20-AFR-freq.tar.gz"]},
    duration_ms=timedelta(seconds=156).total_seconds() * 1_000,
)


class NoExporter(SpanExporter):
    """Takes spans and does nothing with them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 - the signature is OpenTelemetry's
        """Say that it worked."""
        return SpanExportResult.SUCCESS


def emit() -> Call:
    """Return a call of `RunEventEmitter.emit` to Pub/Sub."""
    emitter = RunEventEmitter.from_env()
    return lambda: emitter.emit(RUN)


def steps() -> Call:
    """Return a call that emits the run with `STEPS` steps that have ended, as a recorded run does."""
    emitter = RunEventEmitter.from_env()

    def tick() -> int:
        return PROCESS_CLOCK.tick(RUN.key)

    book = StepBook(tick=tick, now=utc_now, told=lambda: None)
    for number in range(STEPS):
        with StepScope(book, f"step {number}", None) as step:
            step.set(file=f"chr{number}.vcf.gz", rows=number * 1_000)
    if len(book.all(tick())) != STEPS:
        raise RuntimeError("not every step was recorded")
    return lambda: emitter.emit(Checked(RUN, book.all(tick())))


def span() -> Call:
    """Return a call that traces one span with what identifies the run."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(NoExporter()))
    tracer = provider.get_tracer("bench")

    def call() -> None:
        attributes = {"run_id": RUN.id, "workflow_id": RUN.workflow_id, "status": RUN.status.value}
        with tracer.start_as_current_span("run", attributes=attributes):
            pass

    return call


def log() -> Call:
    """Return a call that logs one line with what identifies the run, through a queue."""
    lines: queue.SimpleQueue[object] = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(lines)
    logging.handlers.QueueListener(lines, logging.NullHandler()).start()
    logger = logging.getLogger("bench")
    logger.propagate = False
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return lambda: logger.info("run %s of %s: %s", RUN.id, RUN.workflow_id, RUN.status.value)


def publish() -> Call:
    """Return a call of the vendor's `publish` with the message of the run ready made."""
    client: Any = importlib.import_module("google.cloud.pubsub_v1").PublisherClient()  # it has no annotations
    settings = Settings.from_env()
    topic = f"projects/{settings.project}/topics/{settings.topic}"
    message = encode_event(RunEvent.from_run(RUN))
    attributes = dict(message.attributes)
    return lambda: client.publish(topic, message.data, **attributes)


SUBJECTS: Final[dict[str, Callable[[], Call]]] = {
    "emit": emit,
    "steps": steps,
    "span": span,
    "log": log,
    "publish": publish,
}


def latency(call: Call, count: int) -> dict[str, float]:
    """Return how long *count* calls in a row took, in microseconds."""
    for _ in range(WARM_UP):
        call()
    time.sleep(SETTLE_SECONDS)
    clock = time.perf_counter_ns
    taken = array("q", bytes(8 * count))
    for index in range(count):
        begun = clock()
        call()
        taken[index] = clock() - begun
    return _summary(taken)


def growth(call: Call, count: int) -> dict[str, float]:
    """Return the most memory (MiB) and threads that *count* calls added, how many raised, and their times."""
    taken = array("q", bytes(8 * count))
    clock = time.perf_counter_ns
    memory, threads = _resident_mib(), threading.active_count()
    most_memory, most_threads, raised = memory, threads, 0
    for index in range(count):
        begun = clock()
        try:
            call()
        except Exception:  # noqa: BLE001 - whatever it is, it is counted
            raised += 1
        taken[index] = clock() - begun
        if not index % 500:
            most_memory = max(most_memory, _resident_mib())
            most_threads = max(most_threads, threading.active_count())
    return {
        "MiB": max(most_memory, _resident_mib()) - memory,
        "threads": max(most_threads, threading.active_count()) - threads,
        "raised": raised,
        **_summary(taken),
    }


def _summary(taken: Sequence[int]) -> dict[str, float]:
    """Return percentiles of nanoseconds, in microseconds."""
    return {"p50": percentile(taken, 50) / 1e3, "p99": percentile(taken, 99) / 1e3, "max": max(taken) / 1e3}


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Measure what the command line names, and end at once: what is undelivered is of no interest."""
    kind, subject, count = sys.argv[1:]
    measure = {"latency": latency, "growth": growth}[kind]
    sys.stdout.write(json.dumps(measure(SUBJECTS[subject](), int(count))))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
