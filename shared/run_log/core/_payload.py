"""JSON payloads: any value in, text out, the same value back; and a size that a document can hold."""

from __future__ import annotations

import json
import math
from typing import Any, Final, cast

from pydantic_core import to_jsonable_python

MAX_DEPTH: Final = 500
"""Deepest nesting kept. CPython's json module recurses per level and stops near 1,000 frames in all."""

MAX_PAYLOAD_BYTES: Final = 900_000
"""Most bytes of trigger data, result and error together.

A Firestore document holds 1 MiB (https://firebase.google.com/docs/firestore/quotas); the rest is for ids,
scalar fields and the run's history.
"""

CUT_MARKER: Final = "run-log: cut"
"""How the text begins that stands where a value was cut."""


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
    except (TypeError, ValueError, RecursionError):
        return _dumps(_readable(value, MAX_DEPTH))
    # Every level opens a bracket, so few brackets prove that nothing is too deep.
    if text.count("[") + text.count("{") > MAX_DEPTH:
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


def detached(value: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of *value* in JSON types that shares nothing with it.

    Args:
        value: A payload whose owner may go on changing it.
    """
    return cast("dict[str, Any]", decode_json(encode_json(value))) if value else {}


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
    return markers, cut + sum(len(payload) for payload in payloads)


def fit_text(text: str, limit: int) -> str:
    """Return *text*, or its beginning with a marker where it takes more than *limit* bytes of UTF-8.

    Args:
        text: Any text.
        limit: Bytes of UTF-8.
    """
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    marker = f" [{CUT_MARKER}, {len(encoded)} bytes]"
    return encoded[: max(0, limit - len(marker))].decode(errors="ignore") + marker


def _dumps(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_nearest)


def _nearest(value: object) -> object:
    return to_jsonable_python(value, fallback=repr, inf_nan_mode="strings", bytes_mode="base64")


def _readable(value: object, depth: int, ancestors: frozenset[int] = frozenset()) -> object:
    """Return *value* in JSON types, at most *depth* levels of it, whatever it is."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return _readable_int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else json.dumps(float(value))  # NaN, Infinity
    if depth == 0:
        return f"{CUT_MARKER}, nested deeper than {MAX_DEPTH} levels"
    if id(value) in ancestors:
        return f"{CUT_MARKER}, contains itself"
    try:
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


def _readable_int(value: int) -> object:
    try:
        str(value)
    except ValueError:
        # sys.set_int_max_str_digits: neither json nor its reader would take so many digits.
        return f"{CUT_MARKER}, an integer of {value.bit_length()} bits"
    return int(value)


def _key(key: object) -> str:
    if isinstance(key, str):
        return key
    # The json module writes None, True and False as keys this way.
    return encode_json(key) if key is None or isinstance(key, bool) else repr(key)
