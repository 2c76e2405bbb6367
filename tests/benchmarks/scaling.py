"""How the projection's cost grows: with workflows, payloads, histories, stored runs, and processes."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from run_log.core import Outcome, RunEvent, RunStatus
from run_log.projector import Projector
from run_log.stores import FirestoreRunLogService
from run_log.testing import FirestoreEmulator, a_run

from . import drain, workload
from .report import Options, Report, Row, Sample, in_rounds, medians, number

BATCH: Final = 500
WARM_UP_EVENTS: Final = 12_000
WARM_UP_ROUNDS: Final = 3
WORKFLOWS: Final = (1, 10, 100, 1_000, 10_000)
WORKFLOW_EVENTS: Final = 10_000
SIZES: Final = (100, 1_000, 10_000, 100_000)
"""Bytes of payload."""
SIZE_EVENTS: Final = 5_000
SIZE_BYTES: Final = 30_000_000
"""Of the largest payloads, fewer events are taken: as many as make so many bytes."""
TRANSITIONS: Final = (1, 10, 50, 100, 120)
HISTORY_RUNS: Final = 250
HISTORY_WINDOW: Final = 5
"""Transitions whose median stands for the last of them; the first stands for itself."""
STORED: Final = (1_000, 10_000, 100_000)
STORED_FULL: Final = 1_000_000
STORED_EVENTS: Final = 5_000
STORED_WORKFLOWS: Final = 100
PROCESSES: Final = (1, 2, 4)
QUICK_RUNS: Final = 1_500

Found = TypeVar("Found")


def measure_load(options: Options, emulator: FirestoreEmulator) -> Report:
    """Measure what grows with workflows, payloads and histories, each beside its first row."""
    _warm_up(emulator)
    groups = [_workflows(options, emulator), _sizes(options, emulator), _history(options, emulator)]
    return Report(
        title=f"scaling: Projector.apply into the Firestore emulator, {BATCH} events a batch",
        columns=["x the first", "events/s", "MB/s"],
        rows=[row for group in groups for row in group],
        notes=[
            f"median of {options.repetitions}, the rows of a group in turns; an event is a run's first,",
            "but for the history: the same runs, running time and again",
            "MB/s of payload",
            f"transitions: {HISTORY_RUNS} runs a batch; after the first, median of {HISTORY_WINDOW} up to it",
        ],
    )


def measure_stored(options: Options, emulator: FirestoreEmulator) -> Report:
    """Measure new runs on top of so many stored ones."""
    _warm_up(emulator)
    return Report(
        title=f"stored: Projector.apply into the Firestore emulator, {BATCH} events a batch",
        columns=["x the first", "events/s", "x into an empty project", "there: events/s"],
        rows=_stored(options, emulator),
        notes=[
            f"{STORED_EVENTS:,} new runs of {STORED_WORKFLOWS} workflows on top of so many, median batch,",
            "once; beside them, as many into an empty project of the same emulator right afterwards",
        ],
    )


def measure_processes(options: Options, emulator: FirestoreEmulator) -> Report:
    """Measure how fast one, two and four projectors drain one subscription."""
    return Report(
        title="processes: `run-log projector pull` drains a backlog that was published beforehand",
        columns=["x the first", "events/s"],
        rows=_processes(options, emulator),
        notes=[
            workload.name(),
            f"median of {options.repetitions}, in turns; timed from when the first events are visible",
            f"both emulators share the {os.cpu_count()} cores, so that more processes cannot show more than",
            "what is left of those",
        ],
    )


def _warm_up(emulator: FirestoreEmulator) -> None:
    """Have the emulator's virtual machine compile what is measured next."""
    events = [_event(number, workflows=100) for number in range(WARM_UP_EVENTS)]
    for _ in range(WARM_UP_ROUNDS):
        _alone(emulator, lambda projector: _project(projector, events))


def _workflows(options: Options, emulator: FirestoreEmulator) -> list[Row]:
    count = WORKFLOW_EVENTS // 2 if options.quick else WORKFLOW_EVENTS
    shown = [workflows for workflows in WORKFLOWS if workflows <= count]

    def sample(workflows: int) -> Sample:
        events = [_event(number, workflows=workflows) for number in range(count)]
        taken = _alone(emulator, lambda projector: _project(projector, events))
        return {"rate": len(events) / sum(taken)}

    return _rows(in_rounds(shown, options.repetitions, sample), "workflow", "workflows")


def _sizes(options: Options, emulator: FirestoreEmulator) -> list[Row]:
    def sample(size: int) -> Sample:
        count = min(SIZE_EVENTS, SIZE_BYTES // size // (3 if options.quick else 1))
        payload = _payload(size)
        events = [_event(number, workflows=10, payload=payload) for number in range(count)]
        taken = _alone(emulator, lambda projector: _project(projector, events))
        return {"rate": count / sum(taken), "MB": count * size / sum(taken) / 1e6}

    return _rows(in_rounds(SIZES, options.repetitions, sample), "byte", "bytes")


def _history(options: Options, emulator: FirestoreEmulator) -> list[Row]:
    shown = TRANSITIONS[:3] if options.quick else TRANSITIONS

    async def transitions(projector: Projector) -> list[float]:
        taken: list[float] = []
        for _ in range(max(shown)):
            events = [
                _event(number, workflows=10, status=RunStatus.RUNNING) for number in range(HISTORY_RUNS)
            ]
            taken += await _project(projector, events)
        return taken

    def sample() -> Sample:
        taken = _alone(emulator, transitions)
        found = {"1": HISTORY_RUNS / taken[0]}
        for last in shown[1:]:
            found[str(last)] = HISTORY_RUNS / statistics.median(taken[last - HISTORY_WINDOW : last])
        return found

    middle = medians([sample() for _ in range(options.repetitions)])
    by_transition = {last: {"rate": middle[str(last)]} for last in shown}
    return _rows(by_transition, "st transition", "th transition")


def _stored(options: Options, emulator: FirestoreEmulator) -> list[Row]:
    sizes = STORED[:2] if options.quick else (*STORED, STORED_FULL) if options.full else STORED

    def new(start: int, count: int) -> list[RunEvent]:
        return [_event(number, workflows=STORED_WORKFLOWS) for number in range(start, start + count)]

    async def grow(projector: Projector) -> dict[int, Sample]:
        found: dict[int, Sample] = {}
        stored = 0
        for size in sizes:
            while stored < size:
                count = min(STORED_EVENTS, size - stored)
                await _project(projector, new(stored, count))
                stored += count
            events = new(stored, STORED_EVENTS)
            taken = await _project(projector, events)
            stored += len(events)
            # In a thread, as it has a loop of its own.
            empty = await asyncio.to_thread(
                _alone, emulator, lambda projector: _project(projector, new(0, STORED_EVENTS))
            )
            on_top, into_none = (BATCH / statistics.median(seconds) for seconds in (taken, empty))
            found[size] = {"rate": on_top, "x into none": on_top / into_none, "into none": into_none}
        return found

    return _rows(_alone(emulator, grow), "stored run", "stored runs")


def _processes(options: Options, emulator: FirestoreEmulator) -> list[Row]:
    events = workload.events_of(workload.selected(options)[: QUICK_RUNS if options.quick else None])
    shown = PROCESSES[:2] if options.quick else PROCESSES
    drain.warm_up(events, emulator, rounds=1 if options.quick else drain.WARM_UP_ROUNDS)

    def sample(processes: int) -> Sample:
        return {"rate": drain.rate(events, emulator, processes=processes)}

    return _rows(in_rounds(shown, options.repetitions, sample), "process", "processes")


def _rows(middle: Mapping[int, Sample], one: str, many: str) -> list[Row]:
    first = next(iter(middle.values()))["rate"]
    return [
        Row(
            what=f"{count:,}{'' if 'th ' in many else ' '}{one if count == 1 else many}",
            figures=[
                number(figures["rate"] / first),
                number(figures["rate"]),
                *(number(value) for name, value in figures.items() if name != "rate"),
            ],
        )
        for count, figures in middle.items()
    ]


def _alone(emulator: FirestoreEmulator, work: Callable[[Projector], Coroutine[Any, Any, Found]]) -> Found:
    """Do *work* with a projector into a project of its own, and clear that."""
    project = f"scale-{uuid.uuid4().hex[:8]}"

    async def run() -> Found:
        service = FirestoreRunLogService(project=project)
        try:
            return await work(Projector(service))
        finally:
            await service.close()

    found = asyncio.run(run())
    emulator.clear(project)
    return found


async def _project(projector: Projector, events: Sequence[RunEvent]) -> list[float]:
    """Project *events*; return the seconds that each batch took."""
    taken: list[float] = []
    for batch in workload.chunks(events, BATCH):
        begun = time.perf_counter()
        outcomes = await projector.apply(batch)
        taken.append(time.perf_counter() - begun)
        if set(outcomes) != {Outcome.APPLIED}:
            raise RuntimeError(f"not every event was applied: {outcomes}")
    return taken


def _event(
    number: int,
    *,
    workflows: int,
    payload: dict[str, str] | None = None,
    status: RunStatus = RunStatus.SUCCESS,
) -> RunEvent:
    """Return an event of the run of that number, which belongs to one of so many workflows."""
    return RunEvent.from_run(
        a_run(
            workflow_id=f"workflow-{number % workflows}",
            id=f"run-{number}",
            status=status,
            trigger_data=payload or {},
        )
    )


def _payload(size: int) -> dict[str, str]:
    """Return a mapping of about *size* bytes as JSON, in values of some fifty."""
    whole = {f"key-{number:04}": "x" * 36 for number in range(max(1, size // 50))}
    missing = size - len(whole) * 50
    return {**whole, "rest": "x" * missing} if missing else whole
