"""Trigger types that nobody knows: the run is recorded all the same, as `manual`, and the log says so."""

from __future__ import annotations

import contextlib
import enum
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, cast

from run_log.core import InvalidRunError, TriggerType, WorkflowRun
from run_log.core.logs import get_logger
from run_log.core.models import validated
from run_log.core.nearest import Contained

MAX_WORDS: Final = 100
"""Different words that a process tells of: whoever puts ids into them is told often enough."""

MAX_WORD_LENGTH: Final = 200
"""Characters of such a word that are told."""

_logger: Final = get_logger("run_log.producer")
_KNOWN: Final = frozenset(map(str, TriggerType))
_words: Final[set[str]] = set()
_untold: Final[deque[str]] = deque()


class _Known:
    """Stands for *run*, whatever it is made of, with a trigger type that is known."""

    def __init__(self, run: object, trigger_type: object) -> None:
        self._run = run
        self.trigger_type = trigger_type

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)


def known_trigger(trigger: object) -> object:
    """Return *trigger*; where it is a word that is none there is, ``manual``: see `tell_unknown`."""
    word: object = trigger
    with Contained():
        word = trigger.value if isinstance(trigger, enum.Enum) else trigger
    if not issubclass(type(word), str):
        return trigger
    # A class of the workflow's own may compare and hash as it likes.
    word = str.__str__(cast("str", word))
    if word in _KNOWN:
        return trigger if type(trigger) is str else TriggerType(word)
    told = word[:MAX_WORD_LENGTH]
    if told not in _words and len(_words) < MAX_WORDS:
        _words.add(told)
        _untold.append(told)
    return TriggerType.MANUAL


def recordable(run: object) -> WorkflowRun:
    """Return *run* as `validated` does; where its trigger type is a word that nobody knows, as ``manual``.

    Raises:
        InvalidRunError: A field is missing or wrong; the message names each.
    """
    try:
        return validated(run)
    except InvalidRunError:
        is_mapping = isinstance(run, Mapping)
        source: Any = dict(cast("Mapping[str, object]", run)) if is_mapping else run
        trigger = source.get("trigger_type") if is_mapping else getattr(source, "trigger_type", None)
        known = known_trigger(trigger)
        if known is not trigger:
            # Where that does not help, what is told is the run's own fault, not that of what stands for it.
            with contextlib.suppress(InvalidRunError):
                return validated({**source, "trigger_type": known} if is_mapping else _Known(source, known))
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
