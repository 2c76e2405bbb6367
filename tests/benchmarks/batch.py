"""How many events to a commit, and how many commits at a time: the projector's group commit."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Sequence
from typing import Final

from run_log.core import DeadLetterReason, ReceivedMessage, encode_event
from run_log.projector import Fate, GroupCommit, GroupLimits, Projector
from run_log.stores import FirestoreRunLogService
from run_log.testing import FirestoreEmulator

from . import workload
from .report import Options, Report, Row, in_rounds, number

BATCHES: Final = (50, 100, 250, 500, 1_000)
IN_FLIGHT: Final = (1, 2, 3, 4)
EVENTS: Final = 6_000
QUICK_EVENTS: Final = 3_000
PULLED: Final = 500
"""Messages that come at a time."""
IN_HAND: Final = 8_000
"""More than the largest batches take, so that room is not what is measured."""
WARM_UP_ROUNDS: Final = 6
ROUNDS: Final = 5
"""More than elsewhere: each takes a second or less, which one pause of the emulator can double."""


def measure(options: Options, emulator: FirestoreEmulator) -> Report:
    """Project a part of the trace with each batch size and number of batches in flight."""
    events = workload.events_of(workload.selected(options))[: QUICK_EVENTS if options.quick else EVENTS]
    messages = [
        ReceivedMessage(data=message.data, attributes=message.attributes, message_id=str(at), ack_id=str(at))
        for at, message in enumerate(map(encode_event, events))
    ]
    usual = (GroupLimits().batch, GroupLimits().in_flight)

    def sample(case: tuple[int, int]) -> dict[str, float]:
        batch, in_flight = case
        return {"rate": _rate(emulator, messages, batch=batch, in_flight=in_flight)}

    cases: list[tuple[int, int]] = [*itertools.product(BATCHES, IN_FLIGHT)]
    rounds = 1 if options.quick else ROUNDS
    for _ in range(WARM_UP_ROUNDS):
        sample(usual)
    middle = in_rounds(cases, rounds, sample)
    first = middle[usual]["rate"]
    return Report(
        title=f"batches: x the rate of {usual[0]} events and {usual[1]} in flight ({number(first)} events/s)",
        columns=[f"{count} in flight" for count in IN_FLIGHT],
        rows=[
            Row(
                what=f"{batch:,} events a batch",
                figures=[number(middle[batch, count]["rate"] / first) for count in IN_FLIGHT],
            )
            for batch in BATCHES
        ],
        notes=[
            f"{workload.name()}; {len(messages):,} events of it; median of {rounds}",
            f"through GroupCommit, decoding included, {PULLED} messages coming at a time",
        ],
    )


class _NoDeadLetters:
    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
        raise RuntimeError(f"message {message.message_id} was not projected: {reason}, {error}")


def _rate(
    emulator: FirestoreEmulator, messages: Sequence[ReceivedMessage], *, batch: int, in_flight: int
) -> float:
    project = f"batch-{uuid.uuid4().hex[:8]}"
    limits = GroupLimits(batch=batch, in_flight=in_flight, messages=IN_HAND)
    elapsed = asyncio.run(_settle_all(project, messages, limits))
    emulator.clear(project)
    return len(messages) / elapsed


async def _settle_all(project: str, messages: Sequence[ReceivedMessage], limits: GroupLimits) -> float:
    """Project *messages*; return the seconds until every one was settled."""
    service = FirestoreRunLogService(project=project)
    group = GroupCommit(Projector(service), _NoDeadLetters(), limits=limits)
    fates: list[Fate] = []
    begun = time.perf_counter()
    for part in workload.chunks(messages, PULLED):
        await group.room()
        group.submit(part, lambda _message, fate: fates.append(fate))
        await asyncio.sleep(0)
    await group.wait_quiet()
    elapsed = time.perf_counter() - begun
    group.raise_failure()
    await group.close(0)
    await service.close()
    if fates != [Fate.DONE] * len(messages):
        raise RuntimeError(f"not every message was projected: {set(fates)}, {len(fates)} in all")
    return elapsed
