"""JSON payloads: any value in, text out, the same value back; and a size that a document can hold."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, Final, cast

from .nearest import (
    CUT_MARKER,
    MAX_DEPTH,
    MAX_ENCODED_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_READ_BYTES,
    OBJECT_BYTES,
    Reading,
    as_payload,
    dumps,
    is_plain,
    weigh,
)

MAX_TEXT_BYTES: Final = 32_768
"""Most bytes of UTF-8 that an error, or the reason of a pause, takes."""

MAX_KEYS: Final = 50_000
"""Most outer keys of a payload that are looked at one by one where it has to be cut."""

_MAX_TEXT_PER_WEIGHT: Final = 24
"""Most characters of JSON text for each that `weigh` counts: a float takes that many, a character 12."""

_NOT_BRACKETS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^\[\]{}"]+')
"""What to leave out of JSON text so that only the brackets of its structure stay."""

_STEPS: Final = {"[": 1, "{": 1, "]": -1, "}": -1, '"': 0}
"""How many levels each goes deeper. A quote stays where a text has no end, which is no JSON."""


def encode_json(value: object) -> str:
    """Return *value* as compact ASCII JSON text.

    JSON values come back equal from `decode_json`: nested lists, empty keys, integers of any size, lone
    surrogates. What JSON cannot hold becomes its nearest readable form: a set a list, a datetime its ISO
    text, NaN and infinities their names, an unknown object its repr; nesting beyond `MAX_DEPTH`, circular
    references and what exceeds `MAX_READ_BYTES` become a marker. Iterators are not consumed.

    Args:
        value: Anything.
    """
    if is_plain(value, MAX_ENCODED_BYTES):
        return _encode_plain(value)
    return dumps(Reading(MAX_READ_BYTES).readable(value, MAX_DEPTH))


def decode_json(text: str) -> Any:
    """Return the value that `encode_json` was given.

    Args:
        text: JSON text.

    Raises:
        ValueError: *text* is not JSON.
    """
    return json.loads(text)


def detached(*payloads: object, limit: int = MAX_PAYLOAD_BYTES) -> tuple[tuple[dict[str, Any], ...], int]:
    """Return copies of *payloads* in JSON types that share nothing with them, and how many values were cut.

    A value whose own code raised counts as one.

    Args:
        payloads: Payloads, or what `as_payload` makes such, whose owner may go on changing them.
        limit: Bytes of JSON text they may take together; see `fit_payloads`.
    """
    trimmed, cut = _trimmed(tuple(map(as_payload, payloads)), limit)
    reading = Reading(MAX_READ_BYTES)
    texts = [_encode_payload(payload, reading) for payload in trimmed]
    copies = tuple(cast("dict[str, Any]", decode_json(text)) for text in texts)
    cut += reading.raised
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
    if all(is_plain(payload, limit // _MAX_TEXT_PER_WEIGHT // len(payloads)) for payload in payloads):
        return payloads, 0
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
    return _counted(payloads)


def fit_text(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """Return *text*, or its beginning with a marker where it takes more than *limit* bytes of UTF-8.

    Args:
        text: Any text; what UTF-8 cannot hold is written with backslashes.
        limit: Bytes of UTF-8.
    """
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= limit:
        return encoded.decode()
    marker = f" [{CUT_MARKER}, {len(encoded)} bytes]"
    return encoded[: max(0, limit - len(marker))].decode(errors="ignore") + marker[:limit]


def _trimmed(payloads: tuple[dict[str, Any], ...], limit: int) -> tuple[tuple[dict[str, Any], ...], int]:
    """Return *payloads* without the outer values that alone exceed *limit*, and how many those were.

    What it costs is bounded whatever they hold: weighing ends at the limit, and so does reading what is left.
    """
    if all(weigh(payload, limit)[0] <= limit for payload in payloads):
        return payloads, 0
    if sum(map(len, payloads)) > MAX_KEYS:
        return _counted(payloads)
    copies = tuple(dict(payload) for payload in payloads)
    left = 2 * limit
    cut = 0
    for copy in copies:
        for key, value in copy.items():
            # Small values stay, whatever stands before them.
            weight, _ = weigh(value, max(OBJECT_BYTES, min(left, limit)))
            if weight > limit or (weight > left and weight > OBJECT_BYTES):
                copy[key] = f"{CUT_MARKER}, {_size(value, weight)}"
                cut += 1
            else:
                left -= weight
    return copies, cut


def _counted(payloads: tuple[dict[str, Any], ...]) -> tuple[tuple[dict[str, Any], ...], int]:
    """Return what is left of payloads whose keys alone are too much, and how many values that cuts."""
    markers = tuple({CUT_MARKER: f"{len(payload)} keys"} if payload else {} for payload in payloads)
    return markers, sum(map(len, payloads))


def _size(value: object, weight: int) -> str:
    # Only a text can be measured in time that its length bounds.
    if type(value) is not str:
        return f"more than {weight} bytes"
    return f"{len(dumps(value))} bytes" if len(value) <= MAX_ENCODED_BYTES else f"{len(value)} characters"


def _encode_payload(payload: dict[str, Any], reading: Reading) -> str:
    """Return *payload* as JSON text that has every outer key, whatever *reading* has left for the values."""
    text = _plain_text(payload) if is_plain(payload, MAX_ENCODED_BYTES) else None
    if text is not None:
        return text
    values = reading.values(payload)
    text = _plain_text(values)
    if text is not None:
        return text
    return dumps({key: decode_json(_encode_plain(value)) for key, value in values.items()})


def _encode_plain(value: object) -> str:
    text = _plain_text(value)
    return dumps(Reading(MAX_ENCODED_BYTES).readable(value, MAX_DEPTH)) if text is None else text


def is_deeper(text: str, most: int) -> bool:
    """Return whether the JSON *text* nests more than *most* levels of lists and objects."""
    # Every level opens a bracket, so few brackets prove that nothing is too deep.
    return text.count("[") + text.count("{") > most and _depth(text) > most


def _plain_text(value: object) -> str | None:
    """Return what the json module makes of *value*; None where that would be no JSON, or too deep."""
    try:
        try:
            text = dumps(value)
        except ValueError:  # NaN perhaps: as its name
            text = dumps(json.loads(json.dumps(value), parse_constant=str))
    except (ValueError, TypeError, RecursionError):
        # Too many digits, keys that are none, itself within itself, too deep.
        return None
    return None if is_deeper(text, MAX_DEPTH) else text


def _depth(text: str) -> int:
    """Return how many levels of lists and objects the JSON *text* nests."""
    return max(accumulate(map(_STEPS.__getitem__, _NOT_BRACKETS.sub("", text))), default=0)
