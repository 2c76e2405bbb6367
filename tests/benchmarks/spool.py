"""What an outage costs: processes share a spool directory, one is killed, and another recovers it all."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

from run_log.core import Message, RunStatus, TransportUnavailableError, decode_event
from run_log.producer import RunEventEmitter
from run_log.producer._held import BufferLimits
from run_log.producer._spool import Spool
from run_log.testing import FirestoreEmulator, a_run

from .report import Options, Report, Row, Sample, in_rounds, number

PROCESSES: Final = 8
EVENTS: Final = 10_000
"""Of each process."""
QUICK_EVENTS: Final = 2_000
PAYLOAD: Final = {"text": "x" * 500}
BUFFER: Final = BufferLimits(events=500)
STEP: Final = 250
"""Events emitted at a time, before the disk has to catch up."""
BOUNDS: Final = {"all fits": 1.0, "an eighth fits": 1 / 8}
EVENT_BYTES: Final = 1_600
"""Of an event on disk, at most."""
RECOVERY_SECONDS: Final = 300.0


class _Dead:
    """Takes nothing."""

    def publish(self, messages: Sequence[Message]) -> None:
        raise TransportUnavailableError(f"down for {len(messages)} events")

    def close(self) -> None:
        pass


class _Working:
    """Notes which events it has taken."""

    def __init__(self) -> None:
        self.event_ids: list[str] = []

    def publish(self, messages: Sequence[Message]) -> None:
        self.event_ids += (decode_event(message).event_id for message in messages)

    def close(self) -> None:
        pass


class _Told(Spool):
    """Tells what is on disk now, and how long the delivery thread was kept."""

    def __init__(self, directory: str, max_bytes: int, told: Connection) -> None:
        super().__init__(directory, max_bytes=max_bytes)
        self._told = told
        self._written = 0
        self._longest = 0.0

    def append(self, events: Sequence[Any], **options: Any) -> None:
        begun = time.perf_counter()
        try:
            super().append(events, **options)
            self._written += len(events)
        finally:
            self._longest = max(self._longest, time.perf_counter() - begun)
            self._told.send(_Progress(self._written, self.lost, self._longest))


@dataclass(frozen=True, slots=True)
class _Progress:
    written: int = 0
    lost: int = 0
    longest: float = 0.0


def measure(options: Options, _emulator: FirestoreEmulator) -> Report:
    """Measure shedding under an outage, and the recovery from it."""
    events = QUICK_EVENTS if options.quick else EVENTS
    measured = in_rounds(list(BOUNDS), options.repetitions, lambda name: outage(events, BOUNDS[name]))
    return Report(
        title=f"spool: {PROCESSES} processes shed {events:,} events each, one is killed; another recovers",
        columns=[
            "events/s written",
            "longest pause (s)",
            "MB at most",
            "x its bound",
            "recovered of what was left",
            "events/s recovered",
        ],
        rows=[
            Row(what=name, figures=[number(value) for value in figures.values()])
            for name, figures in measured.items()
        ],
        notes=[
            f"median of {options.repetitions}; MB of all files in the directory, looked at all the time",
            "a killed process may have written more than it had told, so that a little more is recovered",
        ],
    )


def outage(events: int, share: float) -> Sample:
    """Have processes record into a dead broker, kill one of them in the middle, and recover what they left.

    Args:
        events: Of each process.
        share: How much of it the directory may hold.
    """
    bound = int(PROCESSES * events * EVENT_BYTES * share)
    with tempfile.TemporaryDirectory() as directory:
        begun, most, told = _shed(directory, bound, events)
        seconds = time.perf_counter() - begun
        left = sum(one.written - one.lost for one in told)
        found, recovery = _recover(directory)
    return {
        "rate": sum(one.written for one in told) / seconds,
        "longest": max(one.longest for one in told),
        "MB": most / 1e6,
        "x bound": most / bound,
        "share": len(set(found)) / left,
        "recovery": len(found) / recovery,
    }


def _shed(directory: str, bound: int, events: int) -> tuple[float, int, list[_Progress]]:
    """Return when all had started, the most bytes that were on disk, and what each process told last."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES + 1)
    pipes = [context.Pipe(duplex=False) for _ in range(PROCESSES)]
    processes = [
        context.Process(target=_record, args=(directory, bound, events, number, barrier, writing))
        for number, (_, writing) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    told = {reading: _Progress() for reading, _ in pipes}
    for _, writing in pipes:
        writing.close()
    barrier.wait()
    begun = time.perf_counter()
    first, most = pipes[0][0], 0
    open_ones = list(told)
    while open_ones:
        for ready in wait(open_ones, timeout=0.05):
            assert isinstance(ready, Connection)
            try:
                told[ready] = ready.recv()
            except EOFError:
                open_ones.remove(ready)
        if told[first].written >= events // 2:
            processes[0].kill()
        most = max(most, _size(directory))
    for process in processes:
        process.join()
    return begun, most, list(told.values())


def _record(directory: str, bound: int, events: int, worker: int, barrier: Any, told: Connection) -> None:
    emitter = RunEventEmitter(_Dead(), limits=BUFFER, spool=_Told(directory, bound, told))
    barrier.wait()
    for begin in range(0, events, STEP):
        for one in range(begin, begin + STEP):
            # Two states a run: a full directory lets go of the first one before anything else.
            status = RunStatus.RUNNING if one % 2 == 0 else RunStatus.SUCCESS
            emitter.emit(a_run(id=f"{worker}-{one // 2}", status=status, trigger_data=PAYLOAD))
        while emitter.stats.buffered > BUFFER.events + 2 * STEP:
            time.sleep(0.001)
    emitter.close(0)
    told.close()


def _recover(directory: str) -> tuple[list[str], float]:
    transport = _Working()
    emitter = RunEventEmitter(transport, spool=Spool(directory))
    begun = time.perf_counter()
    emitter.emit(a_run(id="own"))
    report = emitter.flush_sync(RECOVERY_SECONDS)
    seconds = time.perf_counter() - begun
    emitter.close(0)
    if report.pending:
        raise RuntimeError(f"not all was recovered in time: {report}")
    return transport.event_ids[:-1], seconds  # without its own


def _size(directory: str) -> int:
    total = 0
    for path in Path(directory).iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
