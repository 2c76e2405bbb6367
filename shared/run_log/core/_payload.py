"""JSON payloads: any value in, text out, the same value back; and a size that a document can hold."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
from collections import deque
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from collections.abc import Set as AbstractSet
from typing import Any, Final, cast

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

MAX_DEPTH: Final = 500
"""Deepest nesting kept. CPython's json module recurses per level and stops near 1,000 frames in all."""

MAX_PAYLOAD_BYTES: Final = 800_000
"""Most bytes of JSON text that trigger data and result take together.

A Firestore document holds 1 MiB (https://firebase.google.com/docs/firestore/quotas); the rest is for ids,
scalar fields and the run's history.
"""

MAX_TEXT_BYTES: Final = 32_768
"""Most bytes of UTF-8 that an error, or the reason of a pause, takes."""

CUT_MARKER: Final = "run-log: cut"
"""How the text begins that stands where a value was cut."""

MAX_ENCODED_BYTES: Final = 4 * MAX_PAYLOAD_BYTES
"""Most bytes of JSON text, about, that are made of one value. Four times what is kept of all: enough to say
how large a value is that is cut, and little enough to be done in tens of milliseconds."""

MAX_REPR: Final = 10_000
"""Most characters kept of the repr of an object that has no nearer form."""

_NODE_BYTES: Final = 16

_NOT_BRACKETS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^\[\]{}"]+')
"""What to leave out of JSON text so that only the brackets of its structure stay."""


def encode_json(value: object) -> str:
    """Return *value* as compact ASCII JSON text.

    JSON values come back equal from `decode_json`: nested lists, empty keys, integers of any size, lone
    surrogates. What JSON cannot hold becomes its nearest readable form: a set a list, a datetime its ISO
    text, NaN and infinities their names, an unknown object its repr; nesting beyond `MAX_DEPTH`, circular
    references and what exceeds `MAX_ENCODED_BYTES` become a marker. Iterators are not consumed.

    Args:
        value: Anything.
    """
    weight, is_plain = _weigh(value, MAX_ENCODED_BYTES)
    if is_plain and weight <= MAX_ENCODED_BYTES:
        return _encode_plain(value)
    return _dumps(_Reading(MAX_ENCODED_BYTES).readable(value, MAX_DEPTH))


def decode_json(text: str) -> Any:
    """Return the value that `encode_json` was given.

    Args:
        text: JSON text.

    Raises:
        ValueError: *text* is not JSON.
    """
    return json.loads(text)


def detached(
    *payloads: dict[str, Any], limit: int = MAX_PAYLOAD_BYTES
) -> tuple[tuple[dict[str, Any], ...], int]:
    """Return copies of *payloads* in JSON types that share nothing with them, and how many values were cut.

    Args:
        payloads: Payloads whose owner may go on changing them.
        limit: Bytes of JSON text they may take together; see `fit_payloads`.
    """
    trimmed, cut = _trimmed(payloads, limit)
    texts = [encode_json(payload) if payload else "{}" for payload in trimmed]
    copies = tuple(cast("dict[str, Any]", decode_json(text)) for text in texts)
    if sum(map(len, texts)) <= limit:
        return copies, cut
    fitted, more = fit_payloads(copies, limit)
    return fitted, cut + more


def fit_payloads(
    payloads: tuple[dict[str, Any], ...], limit: int = MAX_PAYLOAD_BYTES
) -> tuple[tuple[dict[str, Any], ...], int]:
    """Return *payloads* cut to *limit* bytes of JSON in all, and how many values were cut.

    The largest values under the outer keys go first, each replaced by a marker that tells its size, so
    that every outer key stays to be seen.

    Args:
        payloads: Payloads in JSON types, none of which is changed.
        limit: Bytes of JSON text all payloads may take together.
    """
    payloads, trimmed = _trimmed(payloads, limit)
    excess = sum(len(encode_json(payload)) if payload else 2 for payload in payloads) - limit
    if excess <= 0:
        return payloads, trimmed
    fitted = tuple(dict(payload) for payload in payloads)
    sizes = sorted(
        (
            (len(encode_json(value)), index, key)
            for index, payload in enumerate(payloads)
            for key, value in payload.items()
        ),
        reverse=True,
    )
    cut = trimmed
    for size, index, key in sizes:
        marker = f"{CUT_MARKER}, {size} bytes"
        if excess <= 0 or size <= len(marker) + 2:
            break
        fitted[index][key] = marker
        excess -= size - len(marker) - 2
        cut += 1
    if excess <= 0:
        return fitted, cut
    # So many outer keys that the keys alone are too much: nothing is left to keep of them.
    markers = tuple({CUT_MARKER: f"{len(payload)} keys"} if payload else {} for payload in payloads)
    return markers, sum(len(payload) for payload in payloads)


def fit_text(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """Return *text*, or its beginning with a marker where it takes more than *limit* bytes of UTF-8.

    Args:
        text: Any text.
        limit: Bytes of UTF-8.
    """
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    marker = f" [{CUT_MARKER}, {len(encoded)} bytes]"
    return encoded[: max(0, limit - len(marker))].decode(errors="ignore") + marker[:limit]


def _trimmed(payloads: tuple[dict[str, Any], ...], limit: int) -> tuple[tuple[dict[str, Any], ...], int]:
    """Return *payloads* without the outer values that alone exceed *limit*, and how many those were.

    What it costs is bounded whatever they hold: weighing ends at the limit, and so does reading what is left.
    """
    if all(_weigh(payload, limit)[0] <= limit for payload in payloads):
        return payloads, 0
    copies = tuple(dict(payload) for payload in payloads)
    left = 4 * limit
    cut = 0
    for copy in copies:
        for key, value in copy.items():
            weight, _ = _weigh(value, min(left, limit))
            left -= weight
            if weight > limit or left < 0:
                copy[key] = f"{CUT_MARKER}, {_size(value, limit)}"
                cut += 1
    return copies, cut


def _size(value: object, limit: int) -> str:
    # Only a text can be measured in time that its length bounds.
    return f"{len(_dumps(value))} bytes" if type(value) is str else f"more than {limit} bytes"


def _weigh(value: object, budget: int) -> tuple[int, bool]:
    """Return a lower bound of the length of *value*'s JSON text, and whether it is made of JSON's types.

    What is held in several places counts each time, as it does in the text, so that weighing ends once
    *budget* is exceeded: values that hold themselves over and over are short to hold and endless to write.
    """
    weight = 0
    is_plain = True
    ahead: list[Any] = [value]
    while ahead and weight <= budget:
        item = ahead.pop()
        kind = cast("type[object]", type(item))
        if kind is str:
            weight += len(item) + 2
        elif kind is dict:
            weight += 2 + len(item)
            ahead += item
            ahead += item.values()
        elif kind is list or kind is tuple:
            weight += 2 + len(item)
            ahead += item
        else:
            weight += 1
            is_plain = is_plain and (item is None or kind is int or kind is float or kind is bool)
    return weight, is_plain


def _encode_plain(value: object) -> str:
    try:
        text = _dumps(value)
    except (ValueError, TypeError, RecursionError):
        # NaN, too many digits, keys that are none, itself within itself, too deep.
        return _dumps(_Reading(MAX_ENCODED_BYTES).readable(value, MAX_DEPTH))
    # Every level opens a bracket, so few brackets prove that nothing is too deep.
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        return _dumps(_Reading(MAX_ENCODED_BYTES).readable(value, MAX_DEPTH))
    return text


def _dumps(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _depth(text: str) -> int:
    """Return how many levels of lists and objects the JSON *text* nests."""
    deepest = depth = 0
    for character in _NOT_BRACKETS.sub("", text):
        depth += 1 if character in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


class _Reading:
    """Makes JSON types of anything, as much of it as a budget allows.

    Args:
        budget: Bytes of JSON text, about.
    """

    def __init__(self, budget: int) -> None:
        self._left = budget

    def readable(self, value: object, depth: int, ancestors: frozenset[int] = frozenset()) -> object:
        """Return *value* in JSON types, at most *depth* levels of it, whatever it is."""
        try:
            if value is None or isinstance(value, bool):
                return value
            if isinstance(value, str):
                return self._text(value)
            if isinstance(value, int | float):
                return _readable_number(value)
            if depth == 0:
                return f"{CUT_MARKER}, nested deeper than {MAX_DEPTH} levels"
            if id(value) in ancestors:
                return f"{CUT_MARKER}, contains itself"
            return self._object(value, depth - 1, ancestors | {id(value)})
        except Exception as error:  # noqa: BLE001 - a foreign object's own code may raise anything
            return f"{CUT_MARKER}, a {type(value).__name__} that raised {type(error).__name__}"

    def _text(self, text: str) -> str:
        self._left -= len(text)
        return text if self._left >= 0 else f"{CUT_MARKER}, {len(text)} characters"

    def _object(self, value: object, depth: int, ancestors: frozenset[int]) -> object:
        value = _expanded(value)
        if isinstance(value, dict):
            copy: dict[str, object] = {}
            for key, item in cast("dict[object, object]", value).items():
                if self._is_over():
                    copy[CUT_MARKER] = "more than can be kept"
                    break
                copy[self._key(key)] = self.readable(item, depth, ancestors)
            return copy
        if isinstance(value, list | tuple | set | frozenset):
            items: list[object] = []
            for item in cast("list[object]", value):
                if self._is_over():
                    items.append(f"{CUT_MARKER}, more than can be kept")
                    break
                items.append(self.readable(item, depth, ancestors))
            return items
        nearest = _nearest(value)
        return self._text(nearest) if isinstance(nearest, str) else self.readable(nearest, depth, ancestors)

    def _key(self, key: object) -> str:
        # As the json module writes None, True and numbers as keys: the text of the value.
        readable = self.readable(key, MAX_DEPTH)
        return readable if isinstance(readable, str) else _dumps(readable)

    def _is_over(self) -> bool:
        self._left -= _NODE_BYTES
        return self._left < 0


def _readable_number(value: float) -> object:
    if not isinstance(value, int):
        return float(value) if math.isfinite(value) else json.dumps(float(value))  # NaN, Infinity
    try:
        str(value)
    except ValueError:
        # sys.set_int_max_str_digits: neither json nor its reader would take so many digits.
        return f"{CUT_MARKER}, an integer of {value.bit_length()} bits"
    return int(value)


def _expanded(value: object) -> object:
    """Return one level of *value* where it is a container of its own type: it may hold no end of things."""
    if isinstance(value, dict | list | tuple | set | frozenset):
        return cast("object", value)
    if isinstance(value, BaseModel):
        if _is_small(vars(value)):
            return _nearest(value)  # as its own serializers have it
        fields = type(value).model_fields
        return {name: item for name, item in value if name not in fields or not fields[name].exclude}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return [value.value] if _is_container(value.value) else value
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, AbstractSet | deque | KeysView | ValuesView | ItemsView):
        return list(cast("Iterable[object]", value))
    return value


def _is_container(value: object) -> bool:
    return isinstance(value, dict | list | tuple | set | frozenset)


def _is_small(value: object) -> bool:
    weight, is_plain = _weigh(value, MAX_REPR)
    return is_plain and weight <= MAX_REPR


def _nearest(value: object) -> object:
    if isinstance(value, Iterator):
        return _repr(cast("object", value))  # whose it is wants to read it
    return to_jsonable_python(value, fallback=_repr, inf_nan_mode="strings", bytes_mode="base64")


def _repr(value: object) -> str:
    held = getattr(value, "__dict__", None)
    # What a repr takes is not to be known, but what it can be made of is.
    text = repr(value) if held is None or _weigh(held, MAX_REPR)[0] <= MAX_REPR else object.__repr__(value)
    return text if len(text) <= MAX_REPR else f"{text[:MAX_REPR]} [{CUT_MARKER}, {len(text)} characters]"
