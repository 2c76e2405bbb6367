"""The projection into Firestore: the real trace, and one hot workflow."""

from __future__ import annotations

import asyncio
import gc
import time
import uuid
from collections.abc import Sequence

from run_log.core import Outcome, RunEvent
from run_log.projector import Projector
from run_log.stores import FirestoreRunLogService
from run_log.stores.committing.committer import MAX_IN_FLIGHT
from run_log.testing import FirestoreEmulator

from . import workload
from .firestore_baselines import WAYS, prebuilt_commits, raw_writes, replayed, transaction_per_event
from .report import Options, Report, Row, Sample, in_rounds, number

BATCH = 500
TRANSACTION_EVENTS = 320
TRANSACTION_SECONDS = 10.0
HOT_EVENTS = 64
HOT_SECONDS = 4.0

Prebuilt = tuple[str, Sequence[bytes]]
"""Commits, and the project they were made for."""


def measure(options: Options, emulator: FirestoreEmulator) -> Report:
    """Project the trace, the same as of today, and as one workflow's, each beside all baselines."""
    runs = workload.selected(options)
    trace, hot = workload.events_of(runs), workload.events_of(workload.in_one_workflow(runs))
    today = workload.events_of(workload.of_today(runs))
    apart = list({event.run.workflow_id: event for event in trace}.values())[:TRANSACTION_EVENTS]
    cases = {
        "the trace": (trace, apart, TRANSACTION_SECONDS),
        "the trace, as of today": (today, apart, TRANSACTION_SECONDS),
        "one hot workflow": (hot, hot[:HOT_EVENTS], HOT_SECONDS),
    }
    _warm_up(emulator, trace, apart)
    prebuilt = {name: _prebuilt(emulator, events) for name, (events, _, _) in cases.items()}
    # In turns: the same transactions took half as long again where they were the first of each round.
    middle = in_rounds(
        list(cases), options.repetitions, lambda name: _sample(emulator, prebuilt[name], *cases[name])
    )
    for figures in middle.values():
        figures["pace"] = figures["events"] / middle["the trace"]["events"]
    return Report(
        title=f"projection: Projector.apply into the Firestore emulator, {BATCH} events a batch",
        columns=[
            "x transactions",
            "x prebuilt",
            "x raw documents",
            "x the trace",
            "events/s",
            "documents/s",
            "transactions/s",
            "raw documents/s",
        ],
        rows=[_row(name, figures) for name, figures in middle.items()],
        notes=[
            f"{workload.name()}; {len(trace):,} events projected; median of {options.repetitions}",
            f"transactions: {WAYS} at a time, run and stats read; for the trace, an event of each of at most",
            f"{TRANSACTION_EVENTS} workflows, so that none waits for another: their best case;",
            f"for the hot workflow, {HOT_EVENTS} events; none is tried any more after {HOT_SECONDS:g} s",
            "as of today: summaries count its runs by day and hour, which they no longer do for old ones",
            "prebuilt: all that the projection writes, as protocol buffers made beforehand, unconditionally,",
            f"in commits of the same sizes, {MAX_IN_FLIGHT} at a time",
            "where none came through, the ratio is to one in that time: a lower bound",
            "raw documents: the same run documents, made beforehand, in unconditional commits of as many",
        ],
    )


def _warm_up(emulator: FirestoreEmulator, events: Sequence[RunEvent], apart: Sequence[RunEvent]) -> None:
    """Have the emulator's virtual machine compile what is measured next."""
    few = events[: 12 * BATCH]
    for project in ("warm-up-1", "warm-up-2"):
        asyncio.run(_project(project, few))
        asyncio.run(raw_writes(project, few, per_commit=BATCH))
        emulator.clear(project)
        asyncio.run(transaction_per_event(project, apart, seconds=TRANSACTION_SECONDS))
        emulator.clear(project)


def _prebuilt(emulator: FirestoreEmulator, events: Sequence[RunEvent]) -> Prebuilt:
    project = f"prebuilt-{uuid.uuid4().hex[:8]}"
    commits = asyncio.run(prebuilt_commits(project, events, per_apply=BATCH))
    emulator.clear(project)
    return project, commits


def _sample(
    emulator: FirestoreEmulator,
    prebuilt: Prebuilt,
    events: Sequence[RunEvent],
    few: Sequence[RunEvent],
    seconds: float,
) -> dict[str, float]:
    project = f"bench-{uuid.uuid4().hex[:8]}"
    taken, documents = asyncio.run(_project(project, events))
    emulator.clear(project)
    replay_taken = asyncio.run(replayed(*prebuilt))
    emulator.clear(prebuilt[0])
    last = list({event.key: event for event in events}.values())
    raw = len(last) / asyncio.run(raw_writes(project, last, per_commit=BATCH))
    emulator.clear(project)
    committed, transactions_taken = asyncio.run(transaction_per_event(project, few, seconds=seconds))
    emulator.clear(project)
    return {
        "events": len(events) / taken,
        "documents": documents / taken,
        "raw": raw,
        "transactions": committed / transactions_taken,
        "x transactions": len(events) / taken / (max(committed, 1) / transactions_taken),
        "x prebuilt": replay_taken / taken,
        "x raw": documents / taken / raw,
    }


async def _project(project: str, events: Sequence[RunEvent]) -> tuple[float, int]:
    """Project *events*; return the seconds taken, and how many run documents were written."""
    service = FirestoreRunLogService(project=project)
    projector = Projector(service)
    documents = 0
    # The events are held by the benchmark alone: looking through them is no part of the work.
    gc.collect()
    gc.freeze()
    begun = time.perf_counter()
    for batch in workload.chunks(events, BATCH):
        outcomes = await projector.apply(batch)
        if set(outcomes) != {Outcome.APPLIED}:
            raise RuntimeError(f"not every event was applied: {outcomes}")
        documents += len({event.key for event in batch})
    elapsed = time.perf_counter() - begun
    gc.unfreeze()
    await service.close()
    return elapsed, documents


def _row(what: str, figures: Sample) -> Row:
    names = ("x transactions", "x prebuilt", "x raw", "pace", "events", "documents", "transactions", "raw")
    return Row(what=what, figures=[number(figures[name]) for name in names])
