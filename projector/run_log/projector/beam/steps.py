"""Runs in pieces: what workers hold of a run that have each seen some of its events, joined by the law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import TypeAdapter

from run_log.core import Message, RunEvent, Transition, decode_event, encode_event
from run_log.core.law import FoldedRun, fold

_history: Final = TypeAdapter(tuple[Transition, ...])


def folded(event: RunEvent) -> FoldedRun:
    """Return what *event* alone makes of its run."""
    return FoldedRun(event=event, history=(Transition.of(event),))


def joined(runs: Sequence[FoldedRun]) -> FoldedRun:
    """Return what all of *runs*, at least one, make of the run that they are all about.

    As the law is a join, so is this: commutative, associative, and repeats change nothing. So it does not
    matter which worker has seen which events, how often, and in which order.
    """
    earlier = [transition for run in runs for transition in run.history]
    change = fold(None, [run.event for run in runs], earlier=earlier)
    if change.winner is None:
        raise ValueError("joined() needs at least one run")
    return FoldedRun(event=change.winner, history=change.after.history)


def encode_folded(run: FoldedRun) -> bytes:
    """Return *run* as it goes from one worker to another: its event's body, then its history."""
    return encode_event(run.event).data + b"\n" + _history.dump_json(run.history)


def decode_folded(data: bytes) -> FoldedRun:
    """Return what `encode_folded` was given, but for what leads to a trace: no projection keeps that."""
    body, _, history = data.partition(b"\n")
    return FoldedRun(event=decode_event(Message(data=body)), history=_history.validate_json(history))
