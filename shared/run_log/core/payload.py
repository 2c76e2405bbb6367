"""JSON payloads: any value becomes text, the text becomes the same value, and both fit into a document."""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any, Final, cast

from .nearest import (
    CUT_MARKER,
    MAX_DEPTH,
    MAX_ENCODED_BYTES,
    MAX_ENTRIES,
    MAX_PAYLOAD_BYTES,
    MAX_READ_BYTES,
    OBJECT_BYTES,
    OUTER_KEY,
    Contained,
    Entries,
    Reading,
    dumps,
    is_plain,
    unwrapped,
    weigh,
)

MAX_TEXT_BYTES: Final = 32_768
"""The most bytes of UTF-8 that an error, or the reason of a pause, takes."""

# The most outer keys of a payload that are read one by one if it has to be cut.
_MAX_KEYS: Final = 50_000

# `weigh` counts a float as 1, and its text has up to 24 characters. One character of a text takes up to 12.
_MAX_TEXT_PER_WEIGHT: Final = 24

_SHORT_TEXT: Final = 1_000

# Matches everything in JSON text but the brackets of its structure.
_NOT_BRACKETS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^\[\]{}"]+')

# How many levels deeper each character leads. A quote is left only if a text has no end. That is not JSON,
# which the parser says.
_STEPS: Final = {"[": 1, "{": 1, "]": -1, "}": -1, '"': 0}


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else json.dumps(number)


# Python reads NaN and the infinities, which JSON does not have, and reads 1e999 as one of them. As numbers
# they could not be written again.
_foreign_decoder: Final = json.JSONDecoder(parse_constant=str, parse_float=_finite)


def as_payload(value: object) -> dict[str, Any]:
    """Return *value* as a payload. Its values are kept as they are, not read.

    What has keys keeps them, as texts: a mapping, a model, a dataclass, a named tuple. None is an empty
    payload. Anything else becomes the value of `OUTER_KEY`. A dict whose keys are texts is returned itself.
    """
    if value is None:
        return {}
    kind: type[object] = type(value)
    if kind is dict:
        payload = cast("dict[str, Any]", value)
        # The set asks each key's type for its hash, which is the code of a foreign metaclass.
        with Contained():
            if {*map(type, payload)} <= {str}:
                return payload
    # If its code raises, `Reading` says so later, where the value is read.
    with Contained():
        level = unwrapped(value, MAX_ENTRIES)
        if isinstance(level, Entries):
            return dict(Reading(MAX_READ_BYTES).named(level))
    return {OUTER_KEY: value}


def encode_json(value: object) -> str:
    """Return *value* as compact ASCII JSON text.

    `decode_json` returns an equal value for every JSON value: nested lists, empty keys, large integers, lone
    surrogates. Any other value takes its nearest readable form: a set becomes a list, a datetime its ISO
    text, NaN and the infinities their names, an unknown object its repr. A marker replaces nesting beyond
    `MAX_DEPTH`, circular references, and whatever exceeds `MAX_READ_BYTES`. Iterators are not consumed.
    """
    # Every event has a few short texts and empty payloads, so these skip the weighing.
    if not value and type(value) is dict:
        return "{}"
    if type(value) is str and len(value) <= _SHORT_TEXT:
        return dumps(value)
    text = _plain_text(value) if is_plain(value, MAX_ENCODED_BYTES) else None
    return dumps(Reading(MAX_READ_BYTES).readable(value, MAX_DEPTH)) if text is None else text


def decode_json(text: str) -> Any:
    """Return the value that `encode_json` was given. ValueError if *text* is not JSON."""
    return json.loads(text)


def decode_foreign_json(text: str) -> Any:
    """Return the value of JSON *text* that another program wrote.

    NaN, the infinities, and numbers that are too large for a float become their names, as in `encode_json`.
    ValueError if *text* is not JSON, RecursionError if it is too deep.
    """
    return _foreign_decoder.decode(text)


def detached(*payloads: object, limit: int = MAX_PAYLOAD_BYTES) -> tuple[tuple[dict[str, Any], ...], int]:
    """Return copies of *payloads* in JSON types that share nothing with them, and how many values were cut.

    Each may be anything that `as_payload` accepts. Together they take at most *limit* bytes, as those of
    `fit_payloads` do. A value whose own code raised counts as cut.
    """
    # Through text and back: `copy.deepcopy` is slower, and runs the code of foreign objects.
    trimmed, cut = _trimmed(tuple(map(as_payload, payloads)), limit)
    reading = Reading(MAX_READ_BYTES)
    texts = [_encode_payload(payload, reading) for payload in trimmed]
    copies: tuple[dict[str, Any], ...] = tuple(map(decode_json, texts))
    cut += reading.raised
    if sum(map(len, texts)) <= limit:
        return copies, cut
    fitted, more = fit_payloads(copies, limit)
    return fitted, cut + more


def fit_payloads(
    payloads: tuple[dict[str, Any], ...], limit: int = MAX_PAYLOAD_BYTES
) -> tuple[tuple[dict[str, Any], ...], int]:
    """Return *payloads*, of JSON types, cut to *limit* bytes of JSON in all, and how many values were cut.

    The largest values under the outer keys are cut first. A marker that states its size replaces each, so
    every outer key can still be seen.
    """
    # Most payloads are small, and need not be encoded to see that they fit.
    if all(is_plain(payload, limit // _MAX_TEXT_PER_WEIGHT // len(payloads)) for payload in payloads):
        return payloads, 0
    payloads, trimmed = _trimmed(payloads, limit)
    excess = sum(len(encode_json(payload)) if payload else 2 for payload in payloads) - limit
    if excess <= 0:
        return payloads, trimmed
    fitted = tuple(dict(payload) for payload in payloads)
    sizes = [
        (len(encode_json(value)), index, key)
        for index, payload in enumerate(payloads)
        for key, value in payload.items()
    ]
    cut = trimmed
    for size, index, key in sorted(sizes, reverse=True):
        marker = f"{CUT_MARKER}, {size} bytes"
        if excess <= 0 or size <= len(marker) + 2:
            break
        fitted[index][key] = marker
        excess -= size - len(marker) - 2
        cut += 1
    if excess <= 0:
        return fitted, cut
    return _counted(payloads)


def fit_text(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """Return *text* without lone surrogates, or its beginning with a marker, in *limit* bytes of UTF-8."""
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= limit:
        return encoded.decode()
    marker = f" [{CUT_MARKER}, {len(encoded)} bytes]"
    return encoded[: max(0, limit - len(marker))].decode(errors="ignore") + marker[:limit]


def _trimmed(payloads: tuple[dict[str, Any], ...], limit: int) -> tuple[tuple[dict[str, Any], ...], int]:
    """Return *payloads* with markers for the outer values that alone exceed *limit*, and their number."""
    # This bounds the cost of a payload whatever it holds: weighing ends at the limit, and so does reading the
    # values that are left.
    if all(weigh(payload, limit)[0] <= limit for payload in payloads):
        return payloads, 0
    if sum(map(len, payloads)) > _MAX_KEYS:
        return _counted(payloads)
    copies = tuple(dict(payload) for payload in payloads)
    left = 2 * limit
    cut = 0
    for copy in copies:
        for key, value in copy.items():
            # A small value stays, however much the values before it weigh.
            weight, _ = weigh(value, max(OBJECT_BYTES, min(left, limit)))
            if weight > limit or (weight > left and weight > OBJECT_BYTES):
                copy[key] = f"{CUT_MARKER}, {_size(value, weight)}"
                cut += 1
            else:
                left -= weight
    return copies, cut


def _counted(payloads: tuple[dict[str, Any], ...]) -> tuple[tuple[dict[str, Any], ...], int]:
    """Return a marker for each of *payloads*, which have too many keys, and the number of values cut."""
    markers = tuple({CUT_MARKER: f"{len(payload)} keys"} if payload else {} for payload in payloads)
    return markers, sum(map(len, payloads))


def _size(value: object, weight: int) -> str:
    # Only a text has a known length. Anything else would have to be written to be measured.
    if type(value) is not str:
        return f"more than {weight} bytes"
    return f"{len(dumps(value))} bytes" if len(value) <= MAX_ENCODED_BYTES else f"{len(value)} characters"


def _encode_payload(payload: dict[str, Any], reading: Reading) -> str:
    """Return *payload* as JSON text with every outer key, also when the budget of *reading* is used up."""
    text = _plain_text(payload) if is_plain(payload, MAX_ENCODED_BYTES) else None
    if text is not None:
        return text
    values = reading.values(payload)
    text = _plain_text(values)
    if text is not None:
        return text
    # One value at fault, too deep for example, must not cost the others.
    return dumps({key: decode_json(encode_json(value)) for key, value in values.items()})


def is_deeper(text: str, most: int) -> bool:
    """Return whether the JSON *text* nests more than *most* levels of lists and objects."""
    # Not a try of the parser: how deep it goes depends on the version of Python and on the caller's stack.
    # Every level opens a bracket, so a text with few brackets needs no closer look.
    if text.count("[") + text.count("{") <= most:
        return False
    return max(accumulate(map(_STEPS.__getitem__, _NOT_BRACKETS.sub("", text))), default=0) > most


def _plain_text(value: object) -> str | None:
    """Return *value* as the json module writes it; None if that is not JSON, or too deep."""
    try:
        try:
            text = dumps(value)
        except ValueError:
            # It may contain NaN, which becomes its name.
            text = dumps(json.loads(json.dumps(value), parse_constant=str))
    except (ValueError, TypeError, RecursionError):
        # It has an integer of too many digits or a key of another type, contains itself, or is too deep.
        return None
    return None if is_deeper(text, MAX_DEPTH) else text
