"""Trigger types that are no words: a run that has one is recorded all the same, and each is logged once."""

from __future__ import annotations

import contextlib
import enum
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from run_log.core import InvalidRunError, TriggerType, WorkflowRun
from run_log.core.logs import get_logger
from run_log.core.models import is_trigger_word, trigger_of, validated
from run_log.core.nearest import Contained

MAX_WORDS: Final = 100
"""Unknown trigger types that a process logs. Somebody who puts ids into them has been told often enough."""

MAX_WORD_LENGTH: Final = 200
"""Characters of an unknown trigger type that are logged."""

_logger: Final = get_logger("run_log.producer")
_words: Final[set[str]] = set()
_untold: Final[deque[str]] = deque()


def recordable(run: object, label_fields: Sequence[str] = ()) -> WorkflowRun:
    """Return *run* validated, with ``manual`` in place of a text that cannot be a trigger type.

    Raises:
        InvalidRunError: A field is missing or wrong; the message names each.
    """
    try:
        return validated(run, label_fields=label_fields)
    except InvalidRunError:
        is_mapping = isinstance(run, Mapping)
        source: Any = dict(cast("Mapping[str, object]", run)) if is_mapping else run
        trigger = source.get("trigger_type") if is_mapping else getattr(source, "trigger_type", None)
        known = known_trigger(trigger)
        if known is not trigger:
            # If that does not help, the error is to name the run's own faults, not those of its stand-in.
            with contextlib.suppress(InvalidRunError):
                stand_in = {**source, "trigger_type": known} if is_mapping else _Known(source, known)
                return validated(stand_in, label_fields=label_fields)
        raise


def known_trigger(trigger: object) -> object:
    """Return *trigger*, or ``manual`` for a text that cannot be a trigger type, which `tell_unknown` logs."""
    word: object = trigger
    with Contained():
        word = trigger.value if isinstance(trigger, enum.Enum) else trigger
    if not issubclass(type(word), str):
        return trigger
    # A class of the workflow's own may compare and hash as it likes.
    word = str.__str__(cast("str", word))
    if is_trigger_word(word):
        return trigger if type(trigger) is str else trigger_of(word)
    shown = word[:MAX_WORD_LENGTH]
    if shown not in _words and len(_words) < MAX_WORDS:
        _words.add(shown)
        _untold.append(shown)
    return TriggerType.MANUAL


def tell_unknown() -> None:
    """Log the texts that are no trigger types and came up since the last call."""
    # `emit` does not log them itself, because a log handler would hold it up.
    with contextlib.suppress(IndexError):  # another thread may take the last one
        while _untold:
            _logger.warning(
                "run_log_unknown_trigger_type",
                trigger_type=_untold.popleft(),
                recorded_as=TriggerType.MANUAL.value,
                hint="a trigger type is a word of at most 64 of a-z 0-9 _ . -, a letter first",
            )


class _Known:
    """Stands for a run of any class, with a trigger type that is known."""

    def __init__(self, run: object, trigger_type: object) -> None:
        self._run = run
        self.trigger_type = trigger_type

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)
