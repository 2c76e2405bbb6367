"""The filter of a listing: a small part of https://google.aip.dev/160, as a pure function of its text.

``status = failed AND labels.customer = "acme" AND started_at >= 2026-03-04T00:00:00Z``
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple, cast

from run_log.core import RunRef, RunStatus
from run_log.core.fields import MAX_LABEL_LENGTH, is_label_key
from run_log.core.models import is_trigger_word
from run_log.dashboard.errors import InvalidFilterError
from run_log.dashboard.paths import id_of
from run_log.stores.listings import RunConditions

MAX_FILTER: Final = 10_000
"""The most characters of a filter."""

_LABEL: Final = "labels."
_ANY_LABEL: Final = "labels.KEY"
_TIME: Final = "started_at"
_AND: Final = "AND"

_SPACE: Final = re.compile(r"\s*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_OPERATOR: Final = re.compile(r"[<>=!:]*")
_WORD: Final = re.compile(r"[\w.:/~+-]+")
_QUOTED: Final = re.compile(r"""(["'])(?:(?!\1)[^\\]|\\.)*\1""", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)

# The least by which two starts differ.
_MICROSECOND: Final = timedelta(microseconds=1)


class _Condition(NamedTuple):
    name: str
    operator: str
    value: str
    value_at: int
    """Where in the filter the value stands."""


def conditions_of(text: str) -> RunConditions:
    """Return what the filter *text* asks of runs; an empty one asks for nothing.

    Raises:
        InvalidFilterError: It cannot be read. The message says at which character, counted from 1, and what
            may stand there.
    """
    if len(text) > MAX_FILTER:
        raise InvalidFilterError(f"the filter has {len(text)} characters; it may have {MAX_FILTER}")
    found: dict[str, object] = {}
    labels: dict[str, str] = {}
    at = _after_space(text, 0)
    while at < len(text):
        one, at = _condition(text, at)
        if one.name.startswith(_LABEL):
            _add(labels, one, {one.name.removeprefix(_LABEL): _read(text, one)})
        else:
            _add(found, one, _conditions(text, one))
        at = _after_and(text, at)
    if labels:
        found["label"] = labels
    return cast("RunConditions", found)


def _condition(text: str, at: int) -> tuple[_Condition, int]:
    """Return the condition that begins at *at*, and where it ends."""
    name = _NAME.match(text, at)
    if name is None or not _is_field(name[0]):
        raise _fault(text, at, *_VALUES)
    allowed = ("=", ">=", "<") if name[0] == _TIME else ("=",)
    operator_at = _after_space(text, name.end())
    operator = cast("re.Match[str]", _OPERATOR.match(text, operator_at))
    if operator[0] not in allowed:
        raise _fault(text, operator_at, *allowed)
    value_at = _after_space(text, operator.end())
    value, end = _value(text, value_at)
    return _Condition(name[0], operator[0], value, value_at), end


def _value(text: str, at: int) -> tuple[str, int]:
    """Return the text or the word that begins at *at*, and where it ends."""
    if quoted := _QUOTED.match(text, at):
        return _ESCAPED.sub(r"\1", quoted[0][1:-1]), quoted.end()
    if word := _WORD.match(text, at):
        return word[0], word.end()
    raise _fault(text, at, "a word of letters, digits and _.:/~+-", "a text in quotes, with the second one")


def _after_and(text: str, at: int) -> int:
    """Return where the next condition begins, after a condition that ends at *at*; else the end of *text*."""
    at = _after_space(text, at)
    if at == len(text):
        return at
    word = _NAME.match(text, at)
    if word is None or word[0] != _AND:
        raise _fault(text, at, _AND, "nothing more")
    at = _after_space(text, word.end())
    if at == len(text):
        raise _fault(text, at, *_VALUES)
    return at


def _after_space(text: str, at: int) -> int:
    return cast("re.Match[str]", _SPACE.match(text, at)).end()


def _is_field(name: str) -> bool:
    return name in _VALUES or (name.startswith(_LABEL) and is_label_key(name.removeprefix(_LABEL)))


def _conditions(text: str, one: _Condition) -> dict[str, object]:
    """Return what *one*, of a field of runs, is among the conditions of a listing."""
    value = _read(text, one)
    if not isinstance(value, datetime):
        return {one.name: value}
    match one.operator:
        case ">=":
            return {"since": value}
        case "<":
            return {"until": value}
        case _:
            return {"since": value, "until": value + _MICROSECOND}


def _add(found: dict[str, object] | dict[str, str], one: _Condition, more: Mapping[str, object]) -> None:
    if not found.keys().isdisjoint(more):
        raise InvalidFilterError(
            f"two conditions of the filter say what {one.name} is, the second at character {one.value_at + 1}"
        )
    cast("dict[str, object]", found).update(more)


def _read(text: str, one: _Condition) -> object:
    read, allowed = _VALUES[_ANY_LABEL if one.name.startswith(_LABEL) else one.name]
    try:
        return read(one.value)
    except ValueError as error:
        raise _fault(text, one.value_at, allowed) from error


def _trigger(word: str) -> str:
    if not is_trigger_word(word):
        raise ValueError(word)
    return word


def _label(value: str) -> str:
    if len(value) > MAX_LABEL_LENGTH:
        raise ValueError(value)
    return value


def _some(value: str) -> str:
    if not value:
        raise ValueError(value)
    return value


def _parent(value: str) -> RunRef:
    workflow, slash, run = value.partition("/")
    if not workflow or not slash or not run or "/" in run:
        raise ValueError(value)
    return RunRef(id_of(workflow), id_of(run))


def _moment(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    # The last microsecond has none after it, where `=` ends.
    if moment.utcoffset() is None or moment.replace(tzinfo=None) == datetime.max:  # noqa: DTZ901 - compared without a zone
        raise ValueError(value)
    return moment


# By what a field is called, what its value is made of, and what it may be.
_VALUES: Final[Mapping[str, tuple[Callable[[str], object], str]]] = {
    "status": (RunStatus, f"one of {', '.join(RunStatus)}"),
    "trigger_type": (_trigger, "a word of at most 64 of a-z 0-9 _ . -, a letter first"),
    "error_type": (_some, "the name of an exception"),
    "parent": (_parent, '"workflow/run", each id as it stands in a path'),
    _ANY_LABEL: (_label, f"a text of at most {MAX_LABEL_LENGTH} characters"),
    _TIME: (_moment, "a time by RFC 3339, such as 2026-03-04T12:00:00Z"),
}


def _fault(text: str, at: int, *allowed: str) -> InvalidFilterError:
    found = f"not {text[at : at + 40]!r}" if at < len(text) else "but the filter ends"
    return InvalidFilterError(f"at character {at + 1} of the filter comes {' or '.join(allowed)}, {found}")
