"""What a value becomes that JSON has no type for: one set of rules for payloads, keys, texts and ids."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import math
import types
from collections import deque
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from pathlib import PurePath
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, RootModel, SecretBytes, SecretStr
from pydantic_core import to_jsonable_python

from .ids import valid_text

_T = TypeVar("_T")

MAX_DEPTH: Final = 500
"""Deepest nesting kept. CPython's json module recurses per level and stops near 1,000 frames in all."""

MAX_PAYLOAD_BYTES: Final = 800_000
"""Most bytes of JSON text that trigger data and result take together.

A Firestore document holds 1 MiB (https://firebase.google.com/docs/firestore/quotas); the rest is for ids,
scalar fields and the run's history.
"""

CUT_MARKER: Final = "run-log: cut"
"""How the text begins that stands where a value was cut."""

OUTER_KEY: Final = "value"
"""The key of a payload whose value has no keys of its own: a list, a text, a number."""

MAX_ENCODED_BYTES: Final = 4 * MAX_PAYLOAD_BYTES
"""Most bytes of JSON text, about, that are made of a value of JSON's own types: the json module is fast."""

MAX_READ_BYTES: Final = MAX_PAYLOAD_BYTES
"""Most bytes of JSON text, about, that are made of objects of other types. Reading those is slow, and done
where a run is emitted: what could not be kept in any case is not read."""

MAX_REPR: Final = 10_000
"""Most characters kept of the repr of an object that has no nearer form."""

_MAX_ENTRIES: Final = MAX_PAYLOAD_BYTES // 4
"""Most outer entries of an object that are looked at: with more, even the shortest would be too much."""

_NODE_BYTES: Final = 16
OBJECT_BYTES: Final = 48
"""What an object counts besides where it is no text, no number and no container: it takes microseconds."""

_BUILT_IN: Final = (dict, list, tuple, set, frozenset)
_MAX_WRAPPED: Final = 8
"""How often something may stand for something else: an enum's member for an array, say."""

_MAX_INTEGER_BITS: Final = 33_000
"""Largest integers whose digits are asked for, which takes time that grows with their square."""

_OWN: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)

_NAME: Final[Callable[[type], str]] = vars(type)["__name__"].__get__

_encoder: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class Contained:
    """Lets nothing out of its block that the code of a foreign object raises there: it may raise anything.

    What is the workflow's own goes through: Ctrl-C, an exit, a cancellation.
    """

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> bool:
        """Hold back *error*, unless it is the workflow's own."""
        return error is not None and is_foreign(error)


def is_foreign(error: BaseException) -> bool:
    """Return whether *error* is a fault of the code that raised it, and not the workflow's own.

    Not every such fault is an `Exception`: what vendors' panics raise is none.
    """
    return not issubclass(type(error), _OWN)  # an exception may lie about its class, or raise


def type_name(value: object) -> str:
    """Return the name of the type of *value*, whatever its metaclass says."""
    return _NAME(type(value))


def as_payload(value: object) -> dict[str, Any]:
    """Return *value* as a payload. What it holds is held, not read.

    What has keys keeps them, as texts: a mapping, a model, a dataclass, a named tuple. Anything else stands
    under `OUTER_KEY`. None is an empty payload.

    Args:
        value: Anything. A dict whose keys are all texts is returned itself.
    """
    if value is None:
        return {}
    kind: type[object] = type(value)
    if kind is dict:
        payload = cast("dict[str, Any]", value)
        with Contained():  # a key's own code runs where it is looked up, a class's where it is hashed
            if {*map(type, payload)} <= {str}:
                return payload
    level: object = None
    with Contained():
        level = unwrapped(value, _MAX_ENTRIES)
    if level is None:
        level = _underneath(value, _MAX_ENTRIES)  # it has raised, and is read later
    if isinstance(level, _Entries):
        return dict(Reading(MAX_READ_BYTES).named(level))
    return {OUTER_KEY: value}


def id_text(value: object) -> str | None:
    """Return the text that *value* is as an id, the same wherever it is given; None where it has none.

    A text is itself. A number, a UUID, a path, a date, an enum's member and bytes are what they are as a key.
    What UTF-8 cannot hold is written with backslashes. None, lists, mappings and other objects have no text.

    Args:
        value: Anything.
    """
    if type(value) is str:
        return valid_text(value)
    try:
        nearest = value if isinstance(value, str) else unwrapped(value)
        if nearest is None or isinstance(nearest, list | Iterator | SecretStr | SecretBytes):
            return None
        if not isinstance(nearest, str | bytes | bytearray | PurePath):
            nearest = to_jsonable_python(nearest)  # raises where it has no form of its own
        if isinstance(nearest, float) and not math.isfinite(nearest):
            return None
        text = as_text(nearest)
    except BaseException as error:  # of no type that has a text, or its own code raised: anything
        if not is_foreign(error):
            raise
        return None
    return None if text.startswith(CUT_MARKER) else text


def as_text(value: object) -> str:
    """Return *value* as a text that UTF-8 can hold: a text as it is, anything else as it is as a key.

    Args:
        value: Anything.
    """
    return valid_text(Reading(MAX_READ_BYTES).key(value))


def weigh(value: object, budget: int, *, plain_only: bool = False) -> tuple[int, bool]:
    """Return a lower bound of the length of *value*'s JSON text, and whether it is made of JSON's types.

    What is held in several places counts each time, as it does in the text, so that weighing ends once
    *budget* is exceeded: values that hold themselves over and over are short to hold and endless to write.
    With *plain_only* it ends at the first thing that JSON has no type for.
    """
    weight = 0
    plain = True
    ahead: list[Any] = [value]
    while ahead and weight <= budget and (plain or not plain_only):
        item = ahead.pop()
        kind: type[object] = type(item)  # pyright: ignore[reportUnknownVariableType]
        if kind is str:
            weight += len(item) + 2
        elif kind is dict:
            weight += 2 + 3 * len(item)
            try:
                weight += len("".join(item))
            except TypeError:
                # Of two keys that are the same text, the json module would lose one; no two integers are.
                plain = plain and {*map(type, item)} == {int}
                ahead += item
            ahead += item.values()
        elif kind is list or kind is tuple:
            weight += 2 + len(item)
            ahead += item
        elif kind is int:
            bits = item.bit_length()
            weight += bits >> 2 or 1
            plain = plain and bits <= _MAX_INTEGER_BITS
        else:
            weight += 1
            plain = plain and (item is None or kind is float or kind is bool)
    return weight, plain


def is_plain(value: object, budget: int) -> bool:
    """Return whether *value* is made of JSON's types, and its JSON text may take at most *budget* bytes."""
    weight, plain = weigh(value, budget, plain_only=True)
    return plain and weight <= budget


def dumps(value: object) -> str:
    """Return *value*, which is made of JSON's types, as compact ASCII JSON text.

    Raises:
        ValueError: It is not, or contains itself.
        TypeError: It is not.
        RecursionError: It is nested too deep.
    """
    return _encoder.encode(value)


class _Entries(list[tuple[object, object]]):
    """Keys and values, in order; the same key may come twice."""


class Reading:
    """Makes JSON types of anything, as much of it as a budget allows.

    Args:
        budget: Bytes of JSON text, about.

    Attributes:
        raised: Values that could not be read, since their own code raised.
    """

    def __init__(self, budget: int) -> None:
        self._left = budget
        self.raised = 0
        self._open: set[int] = set()
        self._in_key = False

    def values(self, payload: dict[str, Any]) -> dict[str, object]:
        """Return *payload* with values that are plain or have been made so."""
        copy: dict[str, object] = {}
        for key, value in _first(payload.items, MAX_ENCODED_BYTES):
            if is_plain(value, MAX_ENCODED_BYTES):
                copy[key] = value
            elif self._is_over():
                copy[key] = f"{CUT_MARKER}, more than can be kept"
            else:
                copy[key] = self.readable(value, MAX_DEPTH - 1)
        return copy

    def named(self, entries: Sequence[tuple[object, object]]) -> Iterator[tuple[str, object]]:
        """Yield *entries* under texts of their own.

        Texts come first to theirs. Where two keys are the same text, a number follows it: ``1``, ``1 (2)``.
        """
        taken = {key for key, _ in entries if type(key) is str}
        seen: set[str] = set()
        numbers: dict[str, int] = {}
        for key, value in entries:
            name = text = key if type(key) is str else self.key(key)
            if type(key) is not str or key in seen:
                while name in taken:
                    numbers[text] = numbers.get(text, 1) + 1
                    name = f"{text} ({numbers[text]})"
                taken.add(name)
            seen.add(name)
            yield name, value

    def key(self, key: object) -> str:
        """Return *key* as a text: bytes decoded, what is no text as its JSON text."""
        # As the json module writes None, True and numbers as keys: the text of the value.
        outer, self._in_key = self._in_key, True
        readable = self.readable(key, MAX_DEPTH)
        self._in_key = outer
        return readable if isinstance(readable, str) else dumps(readable)

    def readable(self, value: object, depth: int) -> object:
        """Return *value* in JSON types, at most *depth* levels of it, whatever it is."""
        try:
            if value is None or value is True or value is False:
                return value
            kind = type(value)  # isinstance would ask the value for its class
            if issubclass(kind, str):
                # Its own type's text, whatever __str__ would say.
                return self._text(str.__str__(cast("str", value)))
            if issubclass(kind, int | float):
                return _readable_number(cast("float", value))
            if kind is _Unread:
                self.raised += 1
                return cast("_Unread", value).told
            if depth == 0:
                return f"{CUT_MARKER}, nested deeper than {MAX_DEPTH} levels"
            if id(value) in self._open:
                return f"{CUT_MARKER}, contains itself"
            self._open.add(id(value))
            try:
                return self._object(value, depth - 1)
            finally:
                self._open.discard(id(value))
        except BaseException as error:  # a foreign object's own code may raise anything
            if not is_foreign(error):
                raise
            self.raised += 1
            return _raised(value, error)

    def _text(self, text: str) -> str:
        if len(text) > self._left:
            return f"{CUT_MARKER}, {len(text)} characters"
        self._left -= len(text)
        return text

    def _object(self, value: object, depth: int) -> object:
        if not issubclass(type(value), _BUILT_IN):
            self._left -= OBJECT_BYTES
        level = self._level(value)
        if isinstance(level, _Entries):
            copy: dict[str, object] = {}
            for name, item in self.named(level):
                if self._is_over() or len(name) > self._left:
                    copy[CUT_MARKER] = "more than can be kept"
                    break
                self._left -= len(name)
                copy[name] = self.readable(item, depth)
            return copy
        if isinstance(level, list):
            items: list[object] = []
            for item in cast("list[object]", level):
                if self._is_over():
                    items.append(f"{CUT_MARKER}, more than can be kept")
                    break
                items.append(self.readable(item, depth))
            return items
        if level is not value:
            return self.readable(level, depth)
        nearest = self._nearest(value)
        return self._text(nearest) if isinstance(nearest, str) else self.readable(nearest, depth)

    def _level(self, value: object) -> object:
        most = max(0, self._left) // _NODE_BYTES + 1
        try:
            return _level(value, most)
        except BaseException as error:
            level = _underneath(value, most) if is_foreign(error) else None
            if level is None:
                raise
            return level

    def _nearest(self, value: object) -> object:
        if isinstance(value, bytes | bytearray):
            if len(value) > self._left:
                return f"{CUT_MARKER}, {len(value)} bytes"
            if self._in_key:
                return value.decode(errors="backslashreplace")  # a name, which who redacts it has to see
        if isinstance(value, Iterator):
            return _repr(cast("object", value))  # whose it is wants to read it
        if isinstance(value, PurePath):
            return str(value)  # which may hold what UTF-8 cannot
        return _jsonable(value)

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


def unwrapped(value: object, most: int = 1) -> object:
    """Return what *value* stands for: the value of an enum's member, a number of numpy's; or itself.

    Of what has entries or items, at most *most* of them, in a list.

    Raises:
        Exception: Whatever a foreign object's own code raises.
    """
    for _ in range(_MAX_WRAPPED):
        level = _level(value, most)
        if level is value or isinstance(level, list):
            return cast("object", level)  # type: ignore[redundant-cast]  # not for pyright
        value = level
    return value


def _level(value: object, most: int) -> object:
    """Return one level of *value*, at most *most* of it, as entries or a list; itself if it has none."""
    if isinstance(value, Mapping):
        return _Entries(_items(cast("Mapping[object, object]", value), most))
    if isinstance(value, tuple) and (names := _field_names(cast("tuple[object, ...]", value))):
        return _Entries(zip(names, cast("tuple[object, ...]", value), strict=True))
    if isinstance(value, list | tuple | AbstractSet | deque | KeysView | ValuesView | ItemsView):
        return _first(lambda: cast("Iterable[object]", value), most)
    if isinstance(value, BaseModel):
        return _model(value, most)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        return _Entries((name, _part(value, partial(getattr, value, name))) for name in fields)
    if isinstance(value, enum.Enum):
        return value.value
    if callable(getattr(type(value), "tolist", None)):
        return _listed(value)
    return value


def _items(mapping: Mapping[object, object], most: int) -> Iterable[tuple[object, object]]:
    """Return at most *most* entries of *mapping*; where they cannot be had together, one by one."""
    with Contained():
        return _first(mapping.items, most)
    if issubclass(type(mapping), dict):
        return cast("_Entries", _underneath(mapping, most))
    keys = _first(lambda: mapping, most)
    return [(key, _part(mapping, partial(mapping.__getitem__, key))) for key in keys]


def _part(owner: object, read: Callable[[], object]) -> object:
    """Return what *read* does of *owner*, or what stands for it where that raises."""
    try:
        return read()
    except BaseException as error:
        if not is_foreign(error):
            raise
        return _Unread(_raised(owner, error))


class _Unread:
    """Stands for a part of a value whose own code raised."""

    def __init__(self, told: str) -> None:
        self.told = told


def _raised(value: object, error: BaseException) -> str:
    return f"{CUT_MARKER}, a {type_name(value)} that raised {type_name(error)}"


def _underneath(value: object, most: int) -> list[Any] | None:
    """Return at most *most* of what *value* holds as the built-in type it derives from; None if from none.

    For what raises where it is read as it wants to be.
    """
    held: Any = value
    if issubclass(type(value), dict):
        return _Entries(islice(dict[object, object].items(held), most))
    bases: tuple[Any, ...] = (*_BUILT_IN, deque)
    own = next((base for base in bases if issubclass(type(value), base)), None)
    return None if own is None else list(islice(own.__iter__(held), most))


def _field_names(value: tuple[object, ...]) -> tuple[str, ...]:
    """Return the names of a named tuple's fields; none of another tuple's."""
    names: object = getattr(type(value), "_fields", ())
    if not isinstance(names, tuple) or len(cast("tuple[object, ...]", names)) != len(value):
        return ()
    return cast("tuple[str, ...]", names)


def _first(entries: Callable[[], Iterable[_T]], most: int) -> list[_T]:
    """Return at most *most* entries of what another thread may be changing, and what may have no end."""
    try:
        return list(islice(entries(), most))
    except RuntimeError:  # changed while it was read
        return list(islice(entries(), most))


def _model(model: BaseModel, most: int) -> object:
    if isinstance(model, RootModel):
        return cast("object", model.root)  # pyright: ignore[reportUnknownMemberType]
    extra = model.__pydantic_extra__ or {}
    if is_plain([vars(model), extra], MAX_REPR):
        with Contained():  # a serializer of its own may raise anything
            return _jsonable(model)
    fields = type(model).model_fields
    held = islice(chain(vars(model).items(), extra.items()), most)
    return _Entries((name, item) for name, item in held if name not in fields or not fields[name].exclude)


def _listed(array: Any) -> object:
    """Return an array, or a scalar of an array's library, as the list or the value that it holds."""
    size = getattr(array, "nbytes", None)
    if size is None:
        size = memoryview(array).nbytes
    if size > MAX_PAYLOAD_BYTES:
        return f"{CUT_MARKER}, a {type_name(array)} of {size} bytes"
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
    return is_plain(held, MAX_REPR)


_TOLD_BY_NAME: Final[frozenset[type]] = frozenset(
    {types.FunctionType, types.BuiltinFunctionType, types.ModuleType, complex, range}
)
_TOLD_BY_ATTRIBUTES: Final[tuple[object, ...]] = (
    object.__repr__,
    types.SimpleNamespace.__repr__,
    BaseException.__repr__,
)
