"""What a schedule publishes, made from its seed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from run_log.core import (
    DeadLetterReason,
    Message,
    PauseRequest,
    RunEvent,
    RunStatus,
    WorkflowRun,
    encode_event,
)
from run_log.core.clock import MAX_HLC
from run_log.core.ids import MAX_ID_BYTES
from run_log.core.law import newest_event
from run_log.core.models import RunKey
from run_log.core.steps import Step, StepStatus, joined_steps
from run_log.core.wire import MAX_MESSAGE_BYTES, message_bytes
from run_log.testing import a_run

from .documents import KEPT_DAYS, NOW_MICROS, REFUSED, TODAY

_ENDS = (RunStatus.SUCCESS, RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.SKIPPED)
_HOUR: Final = 3_600_000_000
_CLOCKS: Final = (0, 0, 0, 0, -10 * 365 * 24 * _HOUR, 20 * _HOUR, 10 * 365 * 24 * _HOUR)
"""How far machines' clocks are ahead, in microseconds; by the last one, nothing is taken."""

_POISON: Final = (
    (b"no json", DeadLetterReason.UNDECODABLE),
    (b"", DeadLetterReason.UNDECODABLE),
    (b"[" * 5_000, DeadLetterReason.UNDECODABLE),
    (b"[" * 501 + b"]" * 501, DeadLetterReason.UNDECODABLE),
    (b'{"type": "run-log.run-state.v1", "hlc": ' + b"9" * 5_000, DeadLetterReason.UNDECODABLE),
    (b'{"type": "run-log.run-state.v999999999"}', DeadLetterReason.UNSUPPORTED_VERSION),
    (b'{"type": "other"}', DeadLetterReason.UNKNOWN_TYPE),
    (b'{"type": "run-log.run-state.v1", "run": {}}', DeadLetterReason.INVALID_EVENT),
)
_LIKE_OURS: Final = {"run-log-reason": "unknown", "run-log-packed": "zlib", "run-log-body-left-out": "9"}
_LARGE_SHARE: Final = 0.004
"""Of schedules in which a message is as large as Pub/Sub takes it: each copy takes a tenth of a second."""

_PAST_LIMITS: Final[tuple[dict[str, Any], ...]] = (
    {"event_id": "e" * 129},
    {"hlc": MAX_HLC},
    {"hlc": -1},
    {"run": {"attempt": 2**31}},
)
"""What an event has that is past a limit by one."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Messages, with what has to become of them."""

    messages: list[Message]
    """In the order of publication, repeats included."""
    events: dict[bytes, RunEvent]
    """The good ones, by body."""
    poison: dict[bytes, DeadLetterReason]
    """The others, by body."""
    before: list[RunEvent] = field(default_factory=list[RunEvent])
    """Of runs that were stored, and have expired, before anything is published."""
    late: dict[bytes, RunEvent] = field(default_factory=dict[bytes, RunEvent])
    """All of those runs, by body: each is a dead letter, or was stored."""

    def newest(self) -> dict[RunKey, RunEvent]:
        """Return the event in which each run has to end."""
        lives: dict[RunKey, list[RunEvent]] = {}
        for event in self.events.values():
            lives.setdefault(event.key, []).append(event)
        return {key: newest_event(events) for key, events in lives.items()}


def make_workload(chance: random.Random) -> Workload:
    """Return few runs of few workflows, their lives out of order and repeated, and some poison.

    Some clocks are wrong, some events have the id of another, or its whole version, and some are of runs that
    have expired.
    """
    load = Workload([], {}, {})
    for number in range(chance.randint(3, 14)):
        is_refused = chance.random() < 0.05
        run_id = f"{REFUSED if is_refused else 'run'}-{number}"
        if chance.random() < 0.05:
            run_id = run_id.ljust(MAX_ID_BYTES, "~")
        ahead = chance.choice(_CLOCKS)
        is_poison = is_refused or ahead == _CLOCKS[-1]
        reason = DeadLetterReason.WRITE_REFUSED if ahead != _CLOCKS[-1] else DeadLetterReason.CLOCK_AHEAD
        for event in _life(chance, f"workflow-{chance.randrange(3)}", run_id, ahead):
            message = encode_event(event)
            load.messages.extend([message] * chance.choice((1, 1, 1, 2)))
            if is_poison:
                load.poison[message.data] = reason
            else:
                load.events[message.data] = event
    for _ in range(chance.choice((0, 0, 1, 2))):
        _add_poison(chance, load)
    if chance.random() < 0.3:
        _add_expired(chance, load)
    if chance.random() < 0.5:
        chance.shuffle(load.messages)
    return load


def _add_poison(chance: random.Random, load: Workload) -> None:
    """Add a message that is no event, with as many attributes as there may be, or as large as it may be."""
    data, reason = chance.choice(_POISON)
    attributes = {"n": str(chance.random())}
    if chance.random() < 0.3:
        attributes |= {f"{number:03}".ljust(256, "n"): "v" * 1_024 for number in range(99)}
    elif chance.random() < 0.3:
        attributes |= _LIKE_OURS
    if chance.random() < 0.3:
        wrong = chance.choice(_PAST_LIMITS)
        body = json.loads(encode_event(_life(chance, "workflow-0", "wrong", 0)[0]).data)
        run = {**body["run"], **wrong.get("run", {})}
        data, reason = json.dumps({**body, **wrong, "run": run}).encode(), DeadLetterReason.INVALID_EVENT
    if chance.random() < _LARGE_SHARE:
        message = Message(data=b"", attributes=attributes)
        data, reason = b"x" * (MAX_MESSAGE_BYTES - message_bytes(message)), DeadLetterReason.UNDECODABLE
    if data not in load.poison:
        load.messages.append(Message(data=data, attributes=attributes))
        load.poison[data] = reason


def _add_expired(chance: random.Random, load: Workload) -> None:
    """Add runs that have expired: events that are stored already, and some that come too late."""
    long_ago = timedelta(days=KEPT_DAYS + chance.randrange(1, 9))
    for number in range(chance.randint(1, 3)):
        life = _life(chance, f"workflow-{chance.randrange(3)}", f"expired-{number}", 0, long_ago)
        life.append(_event(chance, life[-1].run.model_copy(update={"status": RunStatus.SUCCESS}), 0))
        known = life if chance.random() < 0.5 else life[-1:]
        load.before.extend(known)
        for event in life:
            message = encode_event(event)
            load.messages.append(message)
            load.late[message.data] = event


def _life(
    chance: random.Random, workflow_id: str, run_id: str, ahead: int, ago: timedelta = timedelta(0)
) -> list[RunEvent]:
    run = a_run(workflow_id=workflow_id, id=run_id, status=RunStatus.RUNNING, started_at=TODAY - ago)
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
        states.append(run.model_copy(update={"status": chance.choice(_ENDS), "attempt": 2**31 - 1}))
    if chance.random() < 0.3:
        states.insert(1, run)  # it says how far it is, as `_made_of` has it
    events = [_event(chance, state, ahead) for state in states]
    return [_made_of(chance, event) for event in events] if chance.random() < 0.3 else events


def _made_of(chance: random.Random, event: RunEvent) -> RunEvent:
    """Return *event* with steps, of few keys and versions; a running run's may only say how far it is."""
    steps = [
        Step(
            key=chance.choice("abcdef"),
            name="step",
            status=chance.choice(list(StepStatus)),
            started_at=TODAY,
            version=chance.randrange(4),
        )
        for _ in range(chance.randrange(4))
    ]
    return event.model_copy(update={"steps": joined_steps(steps), "is_progress": chance.random() < 0.5})


def _event(chance: random.Random, state: WorkflowRun, ahead: int) -> RunEvent:
    # Few readings of the clock and few ids, so that events differ by either alone, or only by what they say.
    ids = 2 if chance.random() < 0.2 else 10**9
    return RunEvent(
        event_id=f"{state.id.rstrip('~')}-{chance.randrange(ids):09}".rjust(128 if ids == 2 else 0, "~"),
        hlc=NOW_MICROS + ahead + chance.randrange(4),
        occurred_at=state.started_at + timedelta(seconds=chance.randrange(2)),
        run=state.model_copy(update={"result": {"said": chance.randrange(3)}}),
    )
