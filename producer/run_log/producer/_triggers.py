"""Trigger types that nobody knows: the run is recorded all the same, as `manual`, and the log says so."""

from __future__ import annotations

import contextlib
import enum
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, cast

from run_log.core import InvalidRunError, TriggerType, WorkflowRun, get_logger, validated

MAX_WORDS: Final = 100
"""Different words that a process tells of: whoever puts ids into them is told often enough."""

_logger: Final = get_logger("run_log.producer")
_words: Final[set[str]] = set()
_untold: Final[deque[str]] = deque()


class _AsManual:
    """Stands for *run*, whatever it is made of, with another trigger type."""

    def __init__(self, run: object, trigger_type: TriggerType) -> None:
        self._run = run
        self.trigger_type = trigger_type

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)


def known_trigger(trigger: object) -> TriggerType:
    """Return *trigger* as one of those there are: a word that is none is ``manual``; see `tell_unknown`."""
    value: Any = trigger.value if isinstance(trigger, enum.Enum) else trigger
    try:
        return TriggerType(value)
    except Exception:  # noqa: BLE001 - a workflow never notices, whatever its value's own code does
        word = str.__str__(value) if isinstance(value, str) else f"a {type(value).__name__}"
        if word not in _words and len(_words) < MAX_WORDS:
            _words.add(word)
            _untold.append(word)
        return TriggerType.MANUAL


def recordable(run: object) -> WorkflowRun:
    """Return *run* as `validated` does, where only a trigger type that nobody knows is wrong as ``manual``.

    Raises:
        InvalidRunError: Another field is missing or wrong; the message names each.
    """
    try:
        return validated(run)
    except InvalidRunError:
        is_mapping = isinstance(run, Mapping)
        fields = cast("Mapping[str, Any]", run) if is_mapping else {}
        trigger = fields.get("trigger_type") if is_mapping else getattr(run, "trigger_type", None)
        if not isinstance(trigger, str | enum.Enum):
            raise
        with contextlib.suppress(InvalidRunError):
            # What is told of it stays the run's own fault, not that of what stands for it.
            known = known_trigger(trigger)
            return validated({**fields, "trigger_type": known} if is_mapping else _AsManual(run, known))
        raise


def tell_unknown() -> None:
    """Log the words that came up since the last time; not in `emit`, which no log handler is to hold up."""
    while _untold:
        word = _untold.popleft()
        _logger.warning(
            "run_log_unknown_trigger_type",
            trigger_type=word,
            recorded_as=TriggerType.MANUAL.value,
            known=", ".join(TriggerType),
        )
