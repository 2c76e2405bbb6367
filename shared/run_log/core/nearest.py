"""What a value becomes if JSON has no type for it. Payloads, keys, texts and ids follow the same rules."""

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

from pydantic import BaseModel, RootModel
from pydantic_core import to_jsonable_python

_T = TypeVar("_T")

# CPython's json module recurses once a level, and stops near 1,000 frames in all, those of the workflow
# included.
MAX_DEPTH: Final = 500
"""The deepest nesting that is kept."""

# A Firestore document holds 1 MiB (https://firebase.google.com/docs/firestore/quotas). The rest is for ids,
# scalar fields and the run's history.
MAX_PAYLOAD_BYTES: Final = 800_000
"""The most bytes of JSON text that trigger data and result take together."""

CUT_MARKER: Final = "run-log: cut"
"""The beginning of the text that replaces a value that was cut."""

OUTER_KEY: Final = "value"
"""The key of a payload whose value has no keys of its own: a list, a text, a number."""

MAX_ENCODED_BYTES: Final = 4 * MAX_PAYLOAD_BYTES
"""The most bytes of JSON text, roughly, that are made of a value of JSON's own types."""

# Less than above: reading objects is slow, and the workflow waits for it in `emit`.
MAX_READ_BYTES: Final = MAX_PAYLOAD_BYTES
"""The most bytes of JSON text, roughly, that are made of objects of other types."""

_MAX_REPR: Final = 10_000

# With more, even the shortest entries would not fit into a payload.
MAX_ENTRIES: Final = MAX_PAYLOAD_BYTES // 4
"""The most outer entries of an object that are read."""

# What a value costs of the budget, however little text it becomes. Reading an object that is no text, number
# or container takes microseconds, and costs more.
_NODE_BYTES: Final = 16
OBJECT_BYTES: Final = 48

_BUILT_IN: Final = (dict, list, tuple, set, frozenset)
_HOLDERS: Final = (*_BUILT_IN, deque)

# An enum's member may stand for an array, whose scalar stands for a number. A chain without end is a fault.
_MAX_WRAPPED: Final = 8

# The time to make an integer's digits grows with the square of their number.
_MAX_INTEGER_BITS: Final = 33_000

# Every interpreter writes such ones: its limit of digits is never below 640.
_SHORT_INTEGER_BITS: Final = 2_000

_OWN: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)

# A metaclass may define `__name__` as it likes. This one is type's own.
_NAME: Final[Callable[[type], str]] = vars(type)["__name__"].__get__

_encoder: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class Contained:
    """Suppresses whatever the code of a foreign object raises in its block; see `is_foreign`."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> bool:
        """Suppress *error*, unless it is the workflow's own."""
        return error is not None and is_foreign(error)


def is_foreign(error: BaseException) -> bool:
    """Return whether *error* is not the workflow's own, as an interrupt, an exit and a cancellation are."""
    # Not `isinstance(error, Exception)`: a panic of a Rust extension is a BaseException. And isinstance would
    # ask the error for its class, which may lie, or raise.
    return not issubclass(type(error), _OWN)


def type_name(value: object) -> str:
    """Return the name of the type of *value*, whatever its metaclass says."""
    return _NAME(type(value))


def qualified_name(kind: type[object]) -> str:
    """Return the name of a class with its module, unless that is ``builtins`` or ``__main__``."""
    # The repr of `type` itself runs no code of a metaclass: "<class 'module.Name'>", without "builtins".
    return type.__repr__(kind)[len("<class '") : -len("'>")].removeprefix("__main__.")


def weigh(value: object, budget: int, *, plain_only: bool = False) -> tuple[int, bool]:
    """Return a lower bound of the length of *value*'s JSON text, and whether it is made of JSON's types.

    Weighing ends once *budget* is exceeded. With *plain_only* it also ends at the first value that JSON has
    no type for.
    """
    # A value that stands in several places counts each time, as it does in the text. So a value that contains
    # itself exceeds any budget, and needs no memory of what was seen.
    weight = 0
    plain = True
    ahead: list[Any] = [value]
    while ahead and weight <= budget and (plain or not plain_only):
        item = ahead.pop()
        kind: type[object] = type(item)  # pyright: ignore[reportUnknownVariableType]
        if kind is str:
            weight += len(item) + 2
        elif kind is dict:
            # An entry has two quotes and a colon at least.
            weight += 2 + 3 * len(item)
            try:
                weight += len("".join(item))
            except TypeError:
                # The json module would lose one of two keys that are the same text, as 1 and "1" are. Keys
                # that are all integers never are.
                plain = plain and {*map(type, item)} == {int}
                ahead += item
            ahead += item.values()
        elif kind is list or kind is tuple:
            weight += 2 + len(item)
            ahead += item
        elif kind is int:
            bits = item.bit_length()
            # A quarter: each bit is 0.3 of a digit, and this is a lower bound.
            weight += bits >> 2 or 1
            plain = plain and bits <= _MAX_INTEGER_BITS
        else:
            weight += 1
            plain = plain and (item is None or kind is float or kind is bool)
    return weight, plain


def is_plain(value: object, budget: int) -> bool:
    """Return whether *value* is made of JSON's types and weighs at most *budget* bytes."""
    weight, plain = weigh(value, budget, plain_only=True)
    return plain and weight <= budget


def is_json(value: object) -> bool:
    """Return whether *value* is JSON as it stands: texts as keys, finite numbers, at most `MAX_DEPTH` levels.

    Unlike an encoder, this needs no deeper stack for a deeper value.
    """
    level: list[Any] = [value]
    seen = 0
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            kind: type[object] = type(item)  # pyright: ignore[reportUnknownVariableType]
            if kind is list:
                below += item
            elif kind is dict and {*map(type, item)} <= {str}:
                below += item.values()
            elif not _is_json_scalar(item, kind):
                return False
        # A value that contains itself has no end.
        seen += len(below)
        if not below or seen > MAX_ENCODED_BYTES:
            return not below
        level = below
    return False


def _is_json_scalar(item: Any, kind: type[object]) -> bool:
    if kind is float:
        return math.isfinite(item)
    if kind is int:
        return cast("int", item).bit_length() <= _SHORT_INTEGER_BITS
    return kind is str or kind is bool or item is None


def dumps(value: object) -> str:
    """Return *value* as compact ASCII JSON text. It raises for what is not JSON, and for what is too deep."""
    return _encoder.encode(value)


class Entries(list[tuple[object, object]]):
    """Keys and values in order. The same key may come twice."""


class Reading:
    """Turns anything into JSON types, as much of it as a budget allows: bytes of JSON text, roughly."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self.raised = 0
        """How many values could not be read because their own code raised."""
        self._open: set[int] = set()
        self._in_key = False

    def values(self, payload: dict[str, Any]) -> dict[str, object]:
        """Return *payload* with each value in JSON types."""
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
        """Yield *entries* with keys that are distinct texts.

        If two keys become the same text, a number follows it: ``1``, ``1 (2)``.
        """
        # A key that is a text keeps it, also if another key that becomes this text comes first.
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
        """Return *key* as a text: bytes are decoded, any other value becomes its JSON text."""
        # The json module does the same with None, True and numbers as keys.
        outer, self._in_key = self._in_key, True
        readable = self.readable(key, MAX_DEPTH)
        self._in_key = outer
        return readable if isinstance(readable, str) else dumps(readable)

    def readable(self, value: object, depth: int) -> object:
        """Return *value* in JSON types, at most *depth* levels of it. It never raises for a foreign fault."""
        try:
            if value is None or value is True or value is False:
                return value
            # Not isinstance: it would ask the value for its class, which may lie, or raise.
            kind = type(value)
            if issubclass(kind, str):
                self.raised += kind is _Unread
                # An enum's member has another __str__ than the text that it is.
                return self._text(str.__str__(cast("str", value)))
            if issubclass(kind, int | float):
                return _readable_number(cast("float", value))
            if depth == 0:
                return f"{CUT_MARKER}, nested deeper than {MAX_DEPTH} levels"
            # By identity: a foreign object may have no hash, or an __eq__ that raises.
            if id(value) in self._open:
                return f"{CUT_MARKER}, contains itself"
            self._open.add(id(value))
            try:
                return self._object(value, depth - 1)
            finally:
                self._open.discard(id(value))
        # A foreign object's code may raise anything, a BaseException too.
        except BaseException as error:
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
        level = _level(value, max(0, self._left) // _NODE_BYTES + 1)
        if isinstance(level, Entries):
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

    def _nearest(self, value: object) -> object:
        if isinstance(value, bytes | bytearray):
            if len(value) > self._left:
                return f"{CUT_MARKER}, {len(value)} bytes"
            if self._in_key:
                # Not base64 as elsewhere: redaction goes by names, and has to see this one.
                return value.decode(errors="backslashreplace")
        if isinstance(value, Iterator):
            # Not its items: reading them would take them from the workflow.
            return _repr(cast("object", value))
        if isinstance(value, PurePath):
            # Pydantic raises for a path that UTF-8 cannot hold.
            return str(value)
        return _jsonable(value)

    def _is_over(self) -> bool:
        self._left -= _NODE_BYTES
        return self._left < 0


def _readable_number(value: float) -> object:
    if not isinstance(value, int):
        number = float.__float__(value)
        # JSON has no NaN and no Infinity. Their names are what the json module would write.
        return number if math.isfinite(number) else json.dumps(number)
    integer = int.__int__(value)
    try:
        if integer.bit_length() <= _MAX_INTEGER_BITS:
            str(integer)
            return integer
    except ValueError:
        # The interpreter has a limit of digits (`sys.set_int_max_str_digits`), and the json module obeys it.
        pass
    return f"{CUT_MARKER}, an integer of {integer.bit_length()} bits"


def unwrapped(value: object, most: int = 1) -> object:
    """Return what *value* stands for, or itself: the value of an enum's member, the number of a numpy scalar.

    What has entries or items becomes a list of at most *most* of them. A foreign object may raise anything.
    """
    for _ in range(_MAX_WRAPPED):
        level = _level(value, most)
        if level is value or isinstance(level, list):
            return cast("object", level)  # type: ignore[redundant-cast]  # not for pyright
        value = level
    return value


def _level(value: object, most: int) -> object:
    """Return one level of *value*: at most *most* entries or items of it; *value* itself if it has none."""
    try:
        return _told_level(value, most)
    except BaseException as error:
        if not is_foreign(error) or not issubclass(type(value), _HOLDERS):
            raise
    # Its own methods raise. It is read as the built-in type that it derives from.
    held: Any = value
    if issubclass(type(value), dict):
        return Entries(islice(dict[object, object].items(held), most))
    own: Any = next(base for base in _HOLDERS if issubclass(type(value), base))
    items: Iterator[object] = own.__iter__(held)
    return list(islice(items, most))


def _told_level(value: object, most: int) -> object:
    if isinstance(value, Mapping):
        return Entries(_items(cast("Mapping[object, object]", value), most))
    if isinstance(value, tuple) and (names := _field_names(cast("tuple[object, ...]", value))):
        return Entries(zip(names, cast("tuple[object, ...]", value), strict=True))
    if isinstance(value, list | tuple | AbstractSet | deque | KeysView | ValuesView | ItemsView):
        return _first(lambda: cast("Iterable[object]", value), most)
    if isinstance(value, BaseModel):
        return _model(value, most)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        return Entries((name, _part(value, partial(getattr, value, name))) for name in fields)
    if isinstance(value, enum.Enum):
        return value.value
    if callable(getattr(type(value), "tolist", None)):
        return _listed(value)
    return value


def _items(mapping: Mapping[object, object], most: int) -> Iterable[tuple[object, object]]:
    """Return at most *most* entries of *mapping*."""
    try:
        return _first(mapping.items, most)
    except BaseException as error:
        if not is_foreign(error) or issubclass(type(mapping), dict):
            raise
    # `items` raised. One by one, only the entries at fault are lost.
    keys = _first(lambda: mapping, most)
    return [(key, _part(mapping, partial(mapping.__getitem__, key))) for key in keys]


def _part(owner: object, read: Callable[[], object]) -> object:
    """Return what *read* returns of *owner*, or an `_Unread` if it raises."""
    try:
        return read()
    except BaseException as error:
        if not is_foreign(error):
            raise
        return _Unread(_raised(owner, error))


class _Unread(str):
    """The marker of a part of a value that could not be read because its code raised."""

    __slots__ = ()


def _raised(value: object, error: BaseException) -> str:
    return f"{CUT_MARKER}, a {type_name(value)} that raised {type_name(error)}"


def _field_names(value: tuple[object, ...]) -> tuple[str, ...]:
    """Return the names of the fields of a named tuple; none for any other tuple."""
    names: object = getattr(type(value), "_fields", ())
    if not isinstance(names, tuple) or len(cast("tuple[object, ...]", names)) != len(value):
        return ()
    return cast("tuple[str, ...]", names)


def _first(entries: Callable[[], Iterable[_T]], most: int) -> list[_T]:
    # A foreign object may have no end.
    try:
        return list(islice(entries(), most))
    except RuntimeError:
        # Another thread of the workflow changed the object while it was read. Once more usually does.
        return list(islice(entries(), most))


def _model(model: BaseModel, most: int) -> object:
    if isinstance(model, RootModel):
        return cast("object", model.root)  # pyright: ignore[reportUnknownMemberType]
    extra = model.__pydantic_extra__ or {}
    if is_plain([vars(model), extra], _MAX_REPR):
        # A model's own serializer may raise anything. Then its fields are read one by one.
        with Contained():
            return _jsonable(model)
    fields = type(model).model_fields
    held = islice(chain(vars(model).items(), extra.items()), most)
    return Entries((name, item) for name, item in held if name not in fields or not fields[name].exclude)


def _listed(array: Any) -> object:
    """Return an array as a list, and a scalar of an array library as its value."""
    size = getattr(array, "nbytes", None)
    # The standard library's array does not tell.
    size = memoryview(array).nbytes if size is None else size
    if size > MAX_PAYLOAD_BYTES:
        return f"{CUT_MARKER}, a {type_name(array)} of {size} bytes"
    listed = array.tolist()
    # A long double stays what it is in `tolist`.
    return float(listed) if type(listed) is type(array) else listed


def _jsonable(value: object) -> object:
    return to_jsonable_python(
        value, by_alias=False, fallback=_repr, inf_nan_mode="strings", bytes_mode="base64"
    )


def _repr(value: object) -> str:
    if isinstance(value, type):
        text = type.__repr__(value)
    elif isinstance(value, Fraction):
        # As newer versions of pydantic do: the same text with all of them.
        text = str(value)
    else:
        text = repr(value) if _has_quick_repr(value) else object.__repr__(value)
    return text if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]} [{CUT_MARKER}, {len(text)} characters]"


def _has_quick_repr(value: object) -> bool:
    # A repr may read a whole database, or a table of gigabytes, while the workflow waits in `emit`. A repr in
    # Python of an object with few attributes is taken to be quick.
    kind = type(value)
    if kind in _QUICK_TYPES:
        return True
    own_repr = kind.__repr__
    if not (isinstance(own_repr, types.FunctionType) or own_repr in _QUICK_REPRS):
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
    return is_plain(held, _MAX_REPR)


_QUICK_TYPES: Final[frozenset[type]] = frozenset(
    {types.FunctionType, types.BuiltinFunctionType, types.ModuleType, complex, range}
)
_QUICK_REPRS: Final[tuple[object, ...]] = (
    object.__repr__,
    types.SimpleNamespace.__repr__,
    BaseException.__repr__,
)
