from __future__ import annotations

import queue
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_log.core import (
    Message,
    MessageRefusedError,
    RunEvent,
    TransportRefusedError,
    TransportUnavailableError,
    decode_event,
)
from run_log.core.models import RunKey
from run_log.producer import EmitterStats, RunEventEmitter
from run_log.producer._held import BufferLimits
from run_log.producer._metrics import DropReason
from run_log.producer._spool import Spool
from run_log.producer._transport import DeliveryPolicy
from run_log.testing import a_run, an_event

from .core_strategies import examples

_PATIENCE: Final = 60.0
_RUNS: Final = "abcd"
_CULPRIT: Final = "culprit"
_LAST: Final = "last"
_ALL_RUNS: Final = len(_RUNS) + 2
_ENTRY_BYTES: Final = 1_500
"""More than any event here takes, in memory or on disk."""


@dataclass(frozen=True)
class _Emit:
    run: str
    hlc: int


@dataclass(frozen=True)
class _Answer:
    """What the transport says to the next call."""

    error: type[Exception] | None
    taken: bool
    """Whether the messages arrive all the same."""


@dataclass(frozen=True)
class _Pass:
    seconds: float


_emits = st.builds(_Emit, run=st.sampled_from([*_RUNS, _CULPRIT]), hlc=st.integers(0, 9))
_answers = st.sampled_from(
    [
        _Answer(None, taken=True),
        _Answer(TransportUnavailableError, taken=False),
        _Answer(TransportUnavailableError, taken=True),
        _Answer(TransportRefusedError, taken=False),
    ]
)
_steps = st.lists(st.one_of(_emits, _emits, _emits, _answers, st.builds(_Pass, st.just(61.0))), max_size=40)


class _Answering:
    """Waits in every call for what it is to answer, so that a test says what happens meanwhile."""

    def __init__(self) -> None:
        self._calls = threading.Semaphore(0)
        self._answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        self._is_free = False
        self.arrived: list[RunEvent] = []

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        self._calls.release()
        answer = _Answer(None, taken=True) if self._is_free else self._answers.get()
        events = [decode_event(message) for message in messages]
        if answer.error is None and any(event.run.id == _CULPRIT for event in events):
            raise MessageRefusedError("never")
        if answer.taken:
            self.arrived += events
        if answer.error is not None:
            raise answer.error("not now")

    def close(self) -> None:
        """See `Transport.close`."""

    def answer(self, answer: _Answer, *, while_pending: Callable[[], int]) -> None:
        """Answer the call under way, or the next one, which comes as long as something is pending."""
        while while_pending():
            if self._calls.acquire(timeout=0.001):
                self._answers.put(answer)
                return

    def set_free(self) -> None:
        """Take everything from now on."""
        self._is_free = True
        self._answers.put(_Answer(None, taken=True))


@dataclass
class _Emitted:
    events: list[RunEvent] = field(default_factory=list[RunEvent])

    def make(self, step: _Emit) -> RunEvent:
        event = an_event(a_run(id=step.run), hlc=step.hlc, event_id=f"{len(self.events):04}")
        self.events.append(event)
        return event

    def newest(self) -> dict[RunKey, RunEvent]:
        newest: dict[RunKey, RunEvent] = {}
        for event in sorted(self.events, key=lambda event: event.version):
            newest[event.key] = event
        return newest


def _deliver(steps: Sequence[_Emit | _Answer | _Pass], **options: Any) -> tuple[_Emitted, _Answering, Any]:
    """Take the steps, then let everything through; return what was emitted, what came, and the counters."""
    now = [0.0]
    policy = DeliveryPolicy(linger=0, uniform=lambda _low, _high: 0.0, monotonic=lambda: now[0])
    transport, emitted = _Answering(), _Emitted()
    emitter = RunEventEmitter(transport, policy=policy, **options)
    for step in steps:
        match step:
            case _Emit():
                emitter.emit(emitted.make(step))
            case _Answer():
                transport.answer(step, while_pending=lambda: _under_way(emitter.stats))
            case _Pass():
                now[0] += step.seconds
    transport.set_free()
    # Among others that are taken it shows which events are refused.
    emitter.emit(emitted.make(_Emit(_LAST, 0)))
    emitter.flush_sync(_PATIENCE)
    emitter.close(_PATIENCE)
    stats = emitter.stats
    assert len(emitted.events) == stats.emitted == stats.delivered + stats.dropped + stats.aside
    return emitted, transport, stats


def _under_way(stats: EmitterStats) -> int:
    # What stands aside is published again at another start.
    return stats.pending - stats.aside


def _lost(emitted: _Emitted, transport: _Answering) -> list[RunEvent]:
    arrived = {event.event_id for event in transport.arrived}
    return [event for event in emitted.events if event.event_id not in arrived]


def _check(emitted: _Emitted, transport: _Answering, stats: Any) -> None:
    """Nothing is lost that is not counted, and of a run that is not refused, never the newest state."""
    lost = _lost(emitted, transport)
    assert len(lost) <= stats.dropped + stats.aside
    newest = emitted.newest()
    assert [] == [event for event in lost if event is newest[event.key] and event.run.id != _CULPRIT]


@examples(150)
@given(_steps, st.integers(min_value=_ALL_RUNS, max_value=9))
def test_the_newest_state_arrives(steps: list[_Emit | _Answer | _Pass], room: int) -> None:
    """Under any interleaving of emits, drops and failures each run's newest state is delivered."""
    _check(*_deliver(steps, limits=BufferLimits(events=room)))


@examples(150)
@given(_steps, st.integers(min_value=0, max_value=_ALL_RUNS - 1))
def test_what_is_lost_is_counted(steps: list[_Emit | _Answer | _Pass], room: int) -> None:
    """With less room than runs the newest state of one may be lost, and every loss is counted."""
    emitted, transport, stats = _deliver(steps, limits=BufferLimits(events=room))

    dropped: Counter[DropReason] = Counter(stats.dropped_by_reason)
    runs = Counter(event.run.id for event in emitted.events)
    assert len(_lost(emitted, transport)) <= stats.dropped
    assert dropped[DropReason.BUFFER_FULL] <= max(0, len(emitted.events) - room)
    assert dropped[DropReason.REFUSED] <= runs[_CULPRIT]
    assert stats.dropped == dropped[DropReason.BUFFER_FULL] + dropped[DropReason.REFUSED]
    assert not room or emitted.events[-1] in transport.arrived


@pytest.mark.parametrize("spooled_events", [1, 4, 1_000])
@examples(40)
@given(_steps)
def test_the_newest_state_arrives_by_way_of_the_disk(
    spooled_events: int, steps: list[_Emit | _Answer | _Pass]
) -> None:
    """A spool directory, however small, costs no run its newest state, and a large one none of its states."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        spool = Spool(directory, max_bytes=spooled_events * _ENTRY_BYTES)
        limits = BufferLimits(events=_ALL_RUNS)
        emitted, transport, stats = _deliver(steps, limits=limits, spool=spool)

    _check(emitted, transport, stats)
    if spooled_events == 1_000:
        assert not stats.dropped
