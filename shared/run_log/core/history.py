"""A run's history: its transitions, one for each version, of which the newest are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from .clock import micros_of, rfc3339
from .events import RunEvent, Version
from .ids import valid_text
from .json_form import duration_json
from .models import RunStatus
from .payload import decode_json, encode_json, fit_payloads

MAX_HISTORY: Final = 50
"""How many transitions of a run are kept: the newest by version."""

MAX_ANSWERER_BYTES: Final = 128
"""The most bytes of JSON text that a history keeps of who answered a pause."""

MAX_HISTORY_CHOICE_BYTES: Final = 128
"""The most bytes of JSON text that a history keeps of what was chosen."""

MAX_HISTORY_COMMENT_BYTES: Final = 384
"""The most bytes of JSON text, in UTF-8, that a history keeps of a comment."""

MAX_HISTORY_VALUES_BYTES: Final = 256
"""The most bytes of JSON text that a history keeps of the values of an answer."""

_NOBODY: Final = (None, None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One entry of a run's history: an event put the run into a status."""

    version: Version
    """The version of the event."""
    status: RunStatus
    """The status that the event stated."""
    occurred_at: datetime
    """When it occurred, on the emitter's wall clock, in UTC."""
    inferred: bool = False
    """Whether the event was inferred rather than observed."""
    anomaly: bool = False
    """Whether the step into this status breaks the state machine: running after success, for example."""
    answered_by: str | None = None
    """Who answered the pause that ended with this transition, cut if it is long; None if nobody is known."""
    choice: str | None = None
    """What they chose, cut if it is long; None for nothing."""
    comment: str | None = None
    """What they had to say, cut if it is long; None for nothing."""
    values_text: str | None = None
    """See `values`: as JSON text, of which equal ones are exactly equal."""
    lasted: timedelta | None = None
    """How long the run was in this status, on the emitters' wall clocks; None while it still is. Zero if the
    clocks differ so much that the next status seems to come earlier."""

    @property
    def attempt(self) -> int:
        """The run's attempt, from 1."""
        return self.version.attempt

    @property
    def began(self) -> int:
        """The reading of the clock when the run came into this status, in microseconds since the epoch.

        A reading of 0 is none: such an event is stated to come before all others of its attempt. Then this is
        when it occurred.
        """
        return self.version.hlc or micros_of(self.occurred_at)

    @property
    def values(self) -> dict[str, Any] | None:
        """What they filled in, the largest values cut if it is long; None for nothing."""
        return None if self.values_text is None else decode_json(self.values_text)

    def to_json(self) -> dict[str, Any]:
        """Return the transition as JSON: times by RFC 3339 in UTC, the version as its text."""
        return {
            "status": self.status.value,
            "occurred_at": rfc3339(self.occurred_at),
            "lasted_ms": duration_json(self.lasted),
            "attempt": self.attempt,
            "event_id": self.version.event_id,
            "inferred": self.inferred,
            "anomaly": self.anomaly,
            "answered_by": self.answered_by,
            "choice": self.choice,
            "values": self.values,
            "comment": self.comment,
            "version": self.version.text,
        }

    @property
    def rank(self) -> tuple[bool, datetime, bool, str, str, str, str, str]:
        """What decides between two transitions of one version: the observed, later, ended one wins."""
        # Statuses, names and texts only make the order total. Without that, the order of arrival would
        # decide.
        status = self.status
        texts = (self.answered_by or "", self.choice or "", self.comment or "", self.values_text or "")
        return not self.inferred, self.occurred_at, status.is_terminal, status.value, *texts

    @classmethod
    def of(cls, event: RunEvent) -> Transition:
        """Return the transition that *event* states, as it is stored: without what `annotated` adds."""
        pause = event.run.pause if event.status is not RunStatus.PAUSED else None
        return cls(
            version=event.version,
            status=event.status,
            occurred_at=event.occurred_at,
            inferred=event.inferred,
            answered_by=_short(pause.answered_by, MAX_ANSWERER_BYTES) if pause else None,
            choice=_short(pause.choice, MAX_HISTORY_CHOICE_BYTES) if pause else None,
            comment=_short(pause.comment, MAX_HISTORY_COMMENT_BYTES, comment_json) if pause else None,
            values_text=_short_values(pause.values) if pause else None,
        )


def comment_json(text: str) -> str:
    """Return *text* as JSON text that is short in any alphabet."""
    # Escaped, most of the world's letters would take six bytes each of what is kept.
    return json.dumps(valid_text(text), ensure_ascii=False)


def _short(text: str | None, most: int, as_json: Callable[[str], str] = encode_json) -> str | None:
    # Measured as JSON, in which a character takes up to 12 bytes.
    while text and len(as_json(text).encode()) > most:
        text = f"{text[: len(text) * 3 // 4 - 1]}…"
    return text or None


def _short_values(values: dict[str, Any] | None) -> str | None:
    if not values:
        return None
    text = encode_json(values)
    if len(text) <= MAX_HISTORY_VALUES_BYTES:
        return text
    (fitted,), _ = fit_payloads((values,), MAX_HISTORY_VALUES_BYTES)
    return encode_json(fitted)


def newest(transitions: Iterable[Transition]) -> tuple[Transition, ...]:
    """Return the newest `MAX_HISTORY` of a run's *transitions*, one for each version, in version order."""
    unique: dict[Version, Transition] = {}
    for line in transitions:
        known = unique.setdefault(line.version, line)
        if known is not line and known.rank < line.rank:
            unique[line.version] = line
    return tuple(unique[version] for version in sorted(unique)[-MAX_HISTORY:])


def mark_anomalies(history: Iterable[Transition]) -> tuple[Transition, ...]:
    """Return *history*, in version order, with each transition marked that breaks the state machine.

    Within one attempt, an ended run keeps its status, and a run that has started is not pending again.
    """
    # Computed from the whole history, and not stored when an event arrives: the marks must not depend on the
    # order of arrival. A step after an inferred transition is no anomaly, because the inference was wrong,
    # not the run.
    marked: list[Transition] = []
    before: Transition | None = None
    for line in history:
        anomaly = (
            before is not None
            and not before.inferred
            and before.attempt == line.attempt
            and before.status is not line.status
            and (before.status.is_terminal or line.status is RunStatus.PENDING)
        )
        marked.append(line if anomaly == line.anomaly else replace(line, anomaly=anomaly))
        before = line
    return tuple(marked)


def annotated(history: Iterable[Transition]) -> tuple[Transition, ...]:
    """Return *history* with what follows from its order: anomalies, durations, and answers to pauses."""
    marked = mark_anomalies(history)
    lines: list[Transition] = []
    before: Transition | None = None
    for line, after in zip(marked, (*marked[1:], None), strict=False):
        # Every later state repeats the answer. Only the first one after the pause is shown with it, and one
        # that beats a default: somebody has answered, before or after the default was taken.
        beats = before is not None and before.inferred and _answer(before) not in (_NOBODY, _answer(line))
        is_answer = before is not None and (before.status is RunStatus.PAUSED or beats)
        shown = line if is_answer else _without_answer(line)
        lasted = max(after.occurred_at - line.occurred_at, timedelta(0)) if after else None
        lines.append(replace(shown, lasted=lasted))
        before = shown
    return tuple(lines)


def _answer(line: Transition) -> tuple[str | None, str | None, str | None, str | None]:
    return line.answered_by, line.choice, line.comment, line.values_text


def _without_answer(line: Transition) -> Transition:
    return replace(line, answered_by=None, choice=None, comment=None, values_text=None)
