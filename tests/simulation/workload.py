"""What a schedule publishes, made from its seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from run_log.core import DeadLetterReason, Message, PauseRequest, RunEvent, RunKey, RunStatus, encode_event
from run_log.testing import a_run

from .documents import REFUSED

_ENDS = (RunStatus.SUCCESS, RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.SKIPPED)


@dataclass(frozen=True, slots=True)
class Workload:
    """Messages, with what has to become of them."""

    messages: list[Message]
    """In the order of publication, repeats included."""
    events: dict[bytes, RunEvent]
    """The good ones, by body."""
    poison: dict[bytes, DeadLetterReason]
    """The others, by body."""

    def newest(self) -> dict[RunKey, RunEvent]:
        """Return the event in which each run has to end."""
        newest: dict[RunKey, RunEvent] = {}
        for event in sorted(self.events.values(), key=lambda event: event.version):
            newest[event.key] = event
        return newest


def make_workload(chance: random.Random) -> Workload:
    """Return few runs of few workflows, their lives out of order and repeated, and some poison."""
    messages: list[Message] = []
    events: dict[bytes, RunEvent] = {}
    poison: dict[bytes, DeadLetterReason] = {}
    for number in range(chance.randint(3, 14)):
        is_refused = chance.random() < 0.05
        run_id = f"{REFUSED if is_refused else 'run'}-{number}"
        for event in _life(chance, f"workflow-{chance.randrange(3)}", run_id):
            message = encode_event(event)
            messages += [message] * chance.choice((1, 1, 1, 2))
            if is_refused:
                poison[message.data] = DeadLetterReason.WRITE_REFUSED
            else:
                events[message.data] = event
    for number in range(chance.choice((0, 0, 1, 2))):
        junk = Message(data=b"no json %d" % number)
        messages.append(junk)
        poison[junk.data] = DeadLetterReason.UNDECODABLE
    if chance.random() < 0.5:
        chance.shuffle(messages)
    return Workload(messages, events, poison)


def _life(chance: random.Random, workflow_id: str, run_id: str) -> list[RunEvent]:
    run = a_run(workflow_id=workflow_id, id=run_id, status=RunStatus.RUNNING)
    run = run.model_copy(update={"started_at": run.started_at + timedelta(seconds=chance.randrange(5))})
    states = [run]
    if chance.random() < 0.2:
        states.append(
            run.model_copy(update={"status": RunStatus.PAUSED, "pause": PauseRequest(reason="look")})
        )
    if chance.random() < 0.9:
        states.append(run.model_copy(update={"status": chance.choice(_ENDS)}))
    if chance.random() < 0.2:
        states.append(run.model_copy(update={"status": RunStatus.RUNNING, "attempt": 2}))
        states.append(run.model_copy(update={"status": chance.choice(_ENDS), "attempt": 2}))
    # Few readings of the clock, so that some events differ by their id alone.
    return [
        RunEvent(
            event_id=f"{run_id}-{chance.randrange(10**9):09}",
            hlc=chance.randrange(4),
            occurred_at=state.started_at,
            run=state,
        )
        for state in states
    ]
