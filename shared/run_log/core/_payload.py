"""JSON payloads: any value in, text out, the same value back; and a size that a document can hold."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
import types
from collections import deque
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from collections.abc import Set as AbstractSet
from fractions import Fraction
from itertools import chain, islice
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

_T = TypeVar("_T")

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
"""Most bytes of JSON text, about, that are made of a value of JSON's own types: the json module is fast."""

MAX_READ_BYTES: Final = MAX_PAYLOAD_BYTES
"""Most bytes of JSON text, about, that are made of objects of other types. Reading those is slow, and done
where a run is emitted: what could not be kept in any case is not read."""

MAX_KEYS: Final = 50_000
"""Most outer keys of a payload that are looked at one by one where it has to be cut."""

MAX_REPR: Final = 10_000
"""Most characters kept of the repr of an object that has no nearer form."""

_MAX_TEXT_PER_WEIGHT: Final = 24
"""Most characters of JSON text for each that `_weigh` counts: a float takes that many, a character 12."""

_NODE_BYTES: Final = 16
_OBJECT_BYTES: Final = 48
"""What an object counts besides where it is no text, no number and no container: it takes microseconds."""

_BUILT_IN: Final = (dict, list, tuple, set, frozenset)

_MAX_INTEGER_BITS: Final = 33_000
"""Largest integers whose digits are asked for, which takes time that grows with their square."""

_encoder: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"))

_NOT_BRACKETS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^\[\]{}"]+')
"""What to leave out of JSON text so that only the brackets of its structure stay."""


def encode_json(value: object) -> str:
    """Return *value* as compact ASCII JSON text.

    JSON values come back equal from `decode_json`: nested lists, empty keys, integers of any size, lone
    surrogates. What JSON cannot hold becomes its nearest readable form: a set a list, a datetime its ISO
    text, NaN and infinities their names, an unknown object its repr; nesting beyond `MAX_DEPTH`, circular
    references and what exceeds `MAX_READ_BYTES` become a marker. Iterators are not consumed.

    Args:
        value: Anything.
    """
    if _is_plain(value, MAX_ENCODED_BYTES):
        return _encode_plain(value)
    return _dumps(_Reading(MAX_READ_BYTES).readable(value, MAX_DEPTH))


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
    reading = _Reading(MAX_READ_BYTES)
    texts = [_encode_payload(payload, reading) for payload in trimmed]
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
    if all(_is_plain(payload, limit // _MAX_TEXT_PER_WEIGHT // len(payloads)) for payload in payloads):
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
    if sum(map(len, payloads)) > MAX_KEYS:
        return _counted(payloads)
    copies = tuple(dict(payload) for payload in payloads)
    left = 2 * limit
    cut = 0
    for copy in copies:
        for key, value in copy.items():
            # Small values stay, whatever stands before them.
            weight, _ = _weigh(value, max(_OBJECT_BYTES, min(left, limit)))
            if weight > limit or (weight > left and weight > _OBJECT_BYTES):
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
    return f"{len(_dumps(value))} bytes" if len(value) <= MAX_ENCODED_BYTES else f"{len(value)} characters"


def _weigh(value: object, budget: int, *, plain_only: bool = False) -> tuple[int, bool]:
    """Return a lower bound of the length of *value*'s JSON text, and whether it is made of JSON's types.

    What is held in several places counts each time, as it does in the text, so that weighing ends once
    *budget* is exceeded: values that hold themselves over and over are short to hold and endless to write.
    With *plain_only* it ends at the first thing that JSON has no type for.
    """
    weight = 0
    is_plain = True
    ahead: list[Any] = [value]
    while ahead and weight <= budget and (is_plain or not plain_only):
        item = ahead.pop()
        kind: type[object] = type(item)  # pyright: ignore[reportUnknownVariableType]
        if kind is str:
            weight += len(item) + 2
        elif kind is dict:
            weight += 2 + len(item)
            ahead += item
            ahead += item.values()
        elif kind is list or kind is tuple:
            weight += 2 + len(item)
            ahead += item
        elif kind is int:
            bits = item.bit_length()
            weight += bits >> 2 or 1
            is_plain = is_plain and bits <= _MAX_INTEGER_BITS
        else:
            weight += 1
            is_plain = is_plain and (item is None or kind is float or kind is bool)
    return weight, is_plain


def _is_plain(value: object, budget: int) -> bool:
    """Return whether *value* is made of JSON's types, and its JSON text may take at most *budget* bytes."""
    weight, is_plain = _weigh(value, budget, plain_only=True)
    return is_plain and weight <= budget


def _encode_payload(payload: dict[str, Any], reading: _Reading) -> str:
    """Return *payload* as JSON text that has every outer key, whatever *reading* has left for the values."""
    text = _plain_text(payload) if _is_plain(payload, MAX_ENCODED_BYTES) else None
    if text is not None:
        return text
    values = reading.values(payload)
    text = _plain_text(values)
    if text is not None:
        return text
    return _dumps({key: decode_json(_encode_plain(value)) for key, value in values.items()})


def _encode_plain(value: object) -> str:
    text = _plain_text(value)
    return _dumps(_Reading(MAX_ENCODED_BYTES).readable(value, MAX_DEPTH)) if text is None else text


def _plain_text(value: object) -> str | None:
    """Return what the json module makes of *value*; None where that would be no JSON, or too deep."""
    try:
        try:
            text = _dumps(value)
        except ValueError:  # NaN perhaps: as its name
            text = _dumps(json.loads(json.dumps(value), parse_constant=str))
    except (ValueError, TypeError, RecursionError):
        # Too many digits, keys that are none, itself within itself, too deep.
        return None
    # Every level opens a bracket, so few brackets prove that nothing is too deep.
    too_deep = text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH
    return None if too_deep else text


def _dumps(value: object) -> str:
    return _encoder.encode(value)


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
        self._open: set[int] = set()

    def values(self, payload: dict[str, Any]) -> dict[str, object]:
        """Return *payload* with text for keys, and values that are plain or have been made so."""
        copy: dict[str, object] = {}
        for key, value in _first(payload.items, MAX_ENCODED_BYTES):
            name = key if type(key) is str else self._key(key)
            if _is_plain(value, MAX_ENCODED_BYTES):
                readable = value
            elif self._is_over():
                readable = f"{CUT_MARKER}, more than can be kept"
            else:
                readable = self.readable(value, MAX_DEPTH - 1)
            copy[name] = readable
        return copy

    def readable(self, value: object, depth: int) -> object:
        """Return *value* in JSON types, at most *depth* levels of it, whatever it is."""
        try:
            if value is None or value is True or value is False:
                return value
            if isinstance(value, str):
                return self._text(str.__str__(value))  # its own type's text, whatever __str__ would say
            if isinstance(value, int | float):
                return _readable_number(value)
            if depth == 0:
                return f"{CUT_MARKER}, nested deeper than {MAX_DEPTH} levels"
            if id(value) in self._open:
                return f"{CUT_MARKER}, contains itself"
            self._open.add(id(value))
            try:
                return self._object(value, depth - 1)
            finally:
                self._open.discard(id(value))
        except Exception as error:  # noqa: BLE001 - a foreign object's own code may raise anything
            return f"{CUT_MARKER}, a {type(value).__name__} that raised {type(error).__name__}"

    def _text(self, text: str) -> str:
        if len(text) > self._left:
            return f"{CUT_MARKER}, {len(text)} characters"
        self._left -= len(text)
        return text

    def _object(self, value: object, depth: int) -> object:
        if not issubclass(type(value), _BUILT_IN):
            self._left -= _OBJECT_BYTES
        expanded = _expanded(value, max(0, self._left) // _NODE_BYTES + 1)
        if isinstance(expanded, dict):
            copy: dict[str, object] = {}
            for key, item in cast("dict[object, object]", expanded).items():
                if self._is_over():
                    copy[CUT_MARKER] = "more than can be kept"
                    break
                name = self._key(key)
                copy[name] = self.readable(item, depth)
            return copy
        if isinstance(expanded, list):
            items: list[object] = []
            for item in cast("list[object]", expanded):
                if self._is_over():
                    items.append(f"{CUT_MARKER}, more than can be kept")
                    break
                items.append(self.readable(item, depth))
            return items
        if expanded is not value:
            return self.readable(expanded, depth)
        nearest = self._nearest(value)
        return self._text(nearest) if isinstance(nearest, str) else self.readable(nearest, depth)

    def _nearest(self, value: object) -> object:
        if isinstance(value, bytes | bytearray) and len(value) > self._left:
            return f"{CUT_MARKER}, {len(value)} bytes"
        if isinstance(value, Iterator):
            return _repr(cast("object", value))  # whose it is wants to read it
        return _jsonable(value)

    def _key(self, key: object) -> str:
        if isinstance(key, bytes):
            key = key.decode(errors="backslashreplace")  # a name, which who redacts it has to see
        # As the json module writes None, True and numbers as keys: the text of the value.
        readable = self.readable(key, MAX_DEPTH)
        return readable if isinstance(readable, str) else _dumps(readable)

    def _is_over(self) -> bool:
        self._left -= _NODE_BYTES
        return self._left < 0


def _readable_number(value: float) -> object:
    if not isinstance(value, int):
        number = float.__float__(value)
        return number if math.isfinite(number) else json.dumps(number)  # NaN, Infinity
    integer = int.__int__(value)
    try:
        if integer.bit_length() <= _MAX_INTEGER_BITS:
            str(integer)
            return integer
    except ValueError:
        # sys.set_int_max_str_digits: neither json nor its reader would take so many digits.
        pass
    return f"{CUT_MARKER}, an integer of {integer.bit_length()} bits"


def _expanded(value: object, most: int) -> object:
    """Return one level of *value*, at most *most* entries, in a dict or a list; itself if it has none."""
    if isinstance(value, Mapping):
        return dict(_first(cast("Mapping[object, object]", value).items, most))
    if isinstance(value, list | tuple | AbstractSet | deque | KeysView | ValuesView | ItemsView):
        return _first(lambda: cast("Iterable[object]", value), most)
    if isinstance(value, BaseModel):
        return _model(value, most)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if callable(getattr(type(value), "tolist", None)):
        return _listed(value)
    return value


def _first(entries: Callable[[], Iterable[_T]], most: int) -> list[_T]:
    """Return at most *most* entries of what another thread may be changing, and what may have no end."""
    try:
        return list(islice(entries(), most))
    except RuntimeError:  # changed while it was read
        return list(islice(entries(), most))


def _model(model: BaseModel, most: int) -> object:
    extra = model.__pydantic_extra__ or {}
    if _is_plain([vars(model), extra], MAX_REPR):
        return _jsonable(model)  # as its own serializers have it
    fields = type(model).model_fields
    held = islice(chain(vars(model).items(), extra.items()), most)
    return {name: item for name, item in held if name not in fields or not fields[name].exclude}


def _listed(array: Any) -> object:
    """Return an array, or a scalar of an array's library, as the list or the value that it holds."""
    size = getattr(array, "nbytes", None)
    if size is None:
        size = memoryview(array).nbytes
    if size > MAX_PAYLOAD_BYTES:
        return f"{CUT_MARKER}, a {type(array).__name__} of {size} bytes"
    listed = array.tolist()
    # A long double has no nearer form of its own.
    return float(listed) if type(listed) is type(array) else listed


def _jsonable(value: object) -> object:
    return to_jsonable_python(
        value, by_alias=False, fallback=_repr, inf_nan_mode="strings", bytes_mode="base64"
    )


def _repr(value: object) -> str:
    if isinstance(value, type):
        text = type.__repr__(value)
    elif isinstance(value, Fraction):
        text = str(value)  # as pydantic 2.14 has it, which older ones do not know
    else:
        text = repr(value) if _is_told_quickly(value) else object.__repr__(value)
    return text if len(text) <= MAX_REPR else f"{text[:MAX_REPR]} [{CUT_MARKER}, {len(text)} characters]"


def _is_told_quickly(value: object) -> bool:
    """Return whether the repr of *value* is known to be made of little."""
    kind = type(value)
    if kind in _TOLD_BY_NAME:
        return True
    told_by = kind.__repr__
    if not (isinstance(told_by, types.FunctionType) or told_by in _TOLD_BY_ATTRIBUTES):
        return False
    slots = (
        name
        for base in kind.__mro__
        for name, member in vars(base).items()
        if isinstance(member, types.MemberDescriptorType)
    )
    held: list[object] = [getattr(value, name, None) for name in ("__dict__", *slots)]
    if isinstance(value, BaseException):
        held.append(value.args)
    return _is_plain(held, MAX_REPR)


_TOLD_BY_NAME: Final[frozenset[type]] = frozenset(
    {types.FunctionType, types.BuiltinFunctionType, types.ModuleType, complex, range}
)
_TOLD_BY_ATTRIBUTES: Final[tuple[object, ...]] = (
    object.__repr__,
    types.SimpleNamespace.__repr__,
    BaseException.__repr__,
)
