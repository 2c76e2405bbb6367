"""JSON payloads: any value in, text out, the same value back; and a size that a document can hold."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, cast

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

_NOT_BRACKETS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^\[\]{}"]+')
"""What to leave out of JSON text so that only the brackets of its structure stay."""


def encode_json(value: object) -> str:
    """Return *value* as compact ASCII JSON text.

    JSON values come back equal from `decode_json`: nested lists, empty keys, integers of any size, lone
    surrogates. What JSON cannot hold becomes its nearest readable form: a set a list, a datetime its ISO
    text, NaN and infinities their names, an unknown object its repr; nesting beyond `MAX_DEPTH` and
    circular references become a marker.

    Args:
        value: Anything.
    """
    try:
        text = _dumps(value)
    except Exception:  # noqa: BLE001 - a foreign object's own code may raise anything
        return _dumps(_readable(value, MAX_DEPTH))
    # Every level opens a bracket, so few brackets prove that nothing is too deep.
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        return _dumps(_readable(value, MAX_DEPTH))
    return text


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
    texts = [encode_json(payload) if payload else "{}" for payload in payloads]
    copies = tuple(cast("dict[str, Any]", decode_json(text)) for text in texts)
    return fit_payloads(copies, limit) if sum(map(len, texts)) > limit else (copies, 0)


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
    excess = sum(len(encode_json(payload)) for payload in payloads) - limit
    if excess <= 0:
        return payloads, 0
    fitted = tuple(dict(payload) for payload in payloads)
    sizes = sorted(
        (
            (len(encode_json(value)), index, key)
            for index, payload in enumerate(payloads)
            for key, value in payload.items()
        ),
        reverse=True,
    )
    cut = 0
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


def _dumps(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_nearest)


def _nearest(value: object) -> object:
    return to_jsonable_python(value, fallback=repr, inf_nan_mode="strings", bytes_mode="base64")


def _depth(text: str) -> int:
    """Return how many levels of lists and objects the JSON *text* nests."""
    deepest = depth = 0
    for character in _NOT_BRACKETS.sub("", text):
        depth += 1 if character in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _readable(value: object, depth: int, ancestors: frozenset[int] = frozenset()) -> object:
    """Return *value* in JSON types, at most *depth* levels of it, whatever it is."""
    try:
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int | float):
            return _readable_number(value)
        if depth == 0:
            return f"{CUT_MARKER}, nested deeper than {MAX_DEPTH} levels"
        if id(value) in ancestors:
            return f"{CUT_MARKER}, contains itself"
        return _readable_object(value, depth - 1, ancestors | {id(value)})
    except Exception as error:  # noqa: BLE001 - a foreign object's own code may raise anything
        return f"{CUT_MARKER}, a {type(value).__name__} that raised {type(error).__name__}"


def _readable_object(value: object, depth: int, ancestors: frozenset[int]) -> object:
    if isinstance(value, dict):
        copy: dict[str, object] = {}
        for key, item in cast("dict[object, object]", value).items():
            copy[_key(key)] = _readable(item, depth, ancestors)
        return copy
    if isinstance(value, list | tuple | set | frozenset):
        items: list[object] = []
        for item in cast("list[object]", value):
            items.append(_readable(item, depth, ancestors))  # noqa: PERF401 - a comprehension is one more frame a level
        return items
    return _readable(_nearest(value), depth, ancestors)


def _readable_number(value: float) -> object:
    if not isinstance(value, int):
        return float(value) if math.isfinite(value) else json.dumps(float(value))  # NaN, Infinity
    try:
        str(value)
    except ValueError:
        # sys.set_int_max_str_digits: neither json nor its reader would take so many digits.
        return f"{CUT_MARKER}, an integer of {value.bit_length()} bits"
    return int(value)


def _key(key: object) -> str:
    # As the json module writes None, True and numbers as keys: the text of the value.
    readable = _readable(key, MAX_DEPTH)
    return readable if isinstance(readable, str) else _dumps(readable)
