from __future__ import annotations

import array
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import json
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import count, repeat
from typing import Any, NoReturn
from unittest.mock import MagicMock, Mock

import pytest
from pydantic import BaseModel, Field

from run_log.core import InvalidRunError
from run_log.core.models import validated
from run_log.core.nearest import CUT_MARKER, MAX_DEPTH
from run_log.core.payload import decode_json, detached, encode_json, fit_payloads, fit_text


class _Raises:
    def __repr__(self) -> str:
        raise RuntimeError("no text for you")


class _RaisesOnTouch:
    @property  # type: ignore[misc]
    def __class__(self) -> NoReturn:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride] - what proxies do
        raise RuntimeError("working outside of request context")


class _BadDict(dict[str, int]):
    def items(self) -> NoReturn:
        raise RuntimeError("gone")


class _BadInt(int):
    def __str__(self) -> str:
        raise RuntimeError("no digits")

    __repr__ = __str__


class _Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no text")


class _Endless(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return len(key)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return map(str, count())


class _EndlessSet(AbstractSet[int]):
    def __contains__(self, item: object) -> bool:
        return True

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[int]:
        return repeat(1)


class _Extra(BaseModel, extra="allow"):
    known: Any = Field(default=1, serialization_alias="alias")


def _extra(known: object, more: object) -> _Extra:
    return _Extra.model_validate({"known": known, "more": more})


class _Held:
    def __init__(self, held: object) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"held: {self.held!r}"


class _Slotted:
    __slots__ = ("__held",)

    def __init__(self, held: object) -> None:
        self.__held = held

    def __repr__(self) -> str:
        return f"held: {self.__held!r}"


@dataclasses.dataclass(frozen=True)
class _Row:
    held: object


class _Array:
    def __init__(self, nbytes: int, listed: object) -> None:
        self.nbytes = nbytes
        self._listed = listed

    def tolist(self) -> object:
        return self._listed


class _Wide:
    """A number that has no form of its own, as numpy's long double."""

    nbytes = 16

    def tolist(self) -> object:
        return self

    def __float__(self) -> float:
        return 2.5


class _Changing(dict[str, int]):
    """A dict that another thread changes while it is read for the first time, or always."""

    def __init__(self, changes: int) -> None:
        super().__init__(a=1)
        self.changes = changes

    def items(self) -> Any:
        if self.changes:
            self.changes -= 1
            raise RuntimeError("dictionary changed size during iteration")
        return super().items()


def _doubled(kind: Callable[[Any, Any], Any], levels: int = 60) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = kind(value, value)
    return value


def _namespaces(one: Any, other: Any) -> Any:
    return types.SimpleNamespace(one=one, other=other)


def _slices(one: Any, other: Any) -> Any:
    return slice(one, other)


def _partials(one: Any, other: Any) -> Any:
    return functools.partial(print, one, other)


def _lists(one: Any, other: Any) -> Any:
    return [one, other]


def _enum_of(held: object) -> enum.Enum:
    return enum.Enum("_Odd", {"ONE": held}).ONE  # type: ignore[attr-defined,no-any-return]


class _Colour(enum.Enum):
    RED = "red"


class _Level(enum.IntEnum):
    HIGH = 3


def _in_list(inner: Any) -> list[Any]:
    return [inner]


def _in_object(inner: Any) -> dict[str, Any]:
    return {"k": inner}


def _in_tuple(inner: Any) -> tuple[Any, ...]:
    return (inner,)


def _nested(levels: int, *, kind: Callable[[Any], Any] = _in_list) -> Any:
    value: Any = None
    for _ in range(levels):
        value = kind(value)
    return value


def _circular_list() -> list[Any]:
    circle: list[Any] = [1]
    circle.append(circle)
    return circle


def _circular_dict() -> dict[str, Any]:
    circle: dict[str, Any] = {"a": 1}
    circle["self"] = {"inner": [circle]}
    return circle


def _strict(text: str) -> Any:
    def refuse(name: str) -> NoReturn:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        ([float("inf"), float("-inf")], ["Infinity", "-Infinity"]),
        ((1, (2,)), [1, [2]]),
        (dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC), "2026-01-02T03:04:05.000006Z"),
        (decimal.Decimal("1.50"), "1.50"),
        (b"\xff\x00", "_wA="),
        ([_Colour.RED, _Level.HIGH], ["red", 3]),
        ({_Level.HIGH: 1, "x": float("nan")}, {"3": 1, "x": "NaN"}),
        ({"b": b"", "nan": [float("nan"), {float("inf"): 1}]}, {"b": "", "nan": ["NaN", {"Infinity": 1}]}),
        ({"a": 1}.items(), [["a", 1]]),
        (deque([1]), [1]),
        (_extra(2, 3), {"known": 2, "more": 3}),
        (_extra({1}, 3), {"known": [1], "more": 3}),
        (_enum_of((1, 2)), [1, 2]),
        (_enum_of(_Row({1})), {"held": [1]}),
        (_Held([1]), "held: [1]"),
        (_Slotted([1]), "held: [1]"),
        (ValueError("a", 1), "ValueError('a', 1)"),
        (fractions.Fraction(1, 3), "1/3"),
        ([3j, range(3), _Row], ["3j", "range(0, 3)", repr(_Row)]),
        (array.array("d", [1.5]), [1.5]),
        (memoryview(b"ab"), [97, 98]),
        (_Array(8, {"a": {1}}), {"a": [1]}),
        (_Wide(), 2.5),
    ],
)
def test_what_json_cannot_hold_becomes_its_nearest_form(value: object, decoded: object) -> None:
    """A value that is not JSON comes back in the nearest readable form."""
    assert decoded == _strict(encode_json(value))


@pytest.mark.parametrize(
    "value",
    [
        *(_Raises(), {"key": _Raises(), "other": 1}, {_Raises(): 1}, _Text("x"), _Changing(1_000)),
        *(_BadDict(a=1), [_BadDict(a=1), float("nan")], _BadInt(5), [_BadInt(5), float("nan")]),
        *(_circular_list(), _circular_dict()),
        *(10**5_000, 10**10_000, 1 << 1_000_000, {10**10_000: [10**10_000]}),
        *(Mock(spec=str), Mock(spec=dict), Mock(spec=bool), MagicMock()),
        *(_Endless(), _EndlessSet(), _Endless().keys(), _Endless().items()),
        *(_extra(_doubled(_lists), _doubled(_lists)), _enum_of(_Row(_doubled(_lists)))),
        *(_doubled(_slices), _doubled(_partials), _doubled(_namespaces)),
        _doubled(lambda one, _: _extra(one, one)),
        *(_Held(_doubled(_lists)), _Slotted(_doubled(_lists)), ValueError(_doubled(_lists))),
        *(_nested(5_000), _nested(5_000, kind=_in_object), _nested(5_000, kind=_in_tuple)),
        *(bytes(2_000_000), (item for item in [1, 2]), object(), sys, _circular_list),
    ],
    ids=lambda value: type(value).__name__,
)
def test_hostile_values_become_json(value: object) -> None:
    """Objects that raise, circles, huge integers and bottomless nesting never raise, and give strict JSON."""
    text = encode_json({"outer": value})

    assert list(_strict(text)) == ["outer"]
    assert _strict(encode_json(value)) is not None


def test_an_object_that_cannot_even_be_looked_at_becomes_json() -> None:
    """A proxy that raises as soon as its class is asked for, as unbound request proxies do, is marked."""
    text = encode_json(_RaisesOnTouch())

    assert f"{CUT_MARKER}, a _RaisesOnTouch that raised RuntimeError" == decode_json(text)


def test_a_dict_that_changes_is_read_again() -> None:
    """What another thread changed while it was read is read once more."""
    assert {"v": {"a": 1}, "o": []} == decode_json(encode_json({"v": _Changing(1), "o": set[int]()}))


def test_an_array_too_large_is_cut() -> None:
    """An array that could not be kept in any case is not made a list of."""
    text = encode_json([_Array(1_000_000, "listed"), array.array("b", bytes(1_000_000))])

    assert [
        f"{CUT_MARKER}, a _Array of 1000000 bytes",
        f"{CUT_MARKER}, a array of 1000000 bytes",
    ] == decode_json(text)


@pytest.mark.parametrize("odd", [None, object()], ids=["plain", "odd"])
def test_more_keys_than_are_looked_at(odd: object) -> None:
    """A payload with no end of outer keys leaves their number."""
    payload: dict[str, Any] = {str(number): number for number in range(200_000)}
    payload["odd"] = odd
    (left,), cut = detached(payload)

    assert ({CUT_MARKER: "200001 keys"}, 200_001) == (left, cut)


def test_every_outer_key_stays() -> None:
    """Where reading ends because there is too much of it, outer keys stay, and so do plain values."""
    rows = [_Row(number) for number in range(20_000)]
    payload = {"a": rows, "b": _Row(1), "c": [1, 2], "d": "text", **{f"e{n}": _Row(n) for n in range(9)}}
    (left,), _ = detached(payload)

    assert list(payload) == list(left)
    assert {"held": 0} == left["a"][0]
    assert left["a"][-1].startswith(CUT_MARKER)
    assert left["b"].startswith(CUT_MARKER)
    assert ([1, 2], "text") == (left["c"], left["d"])


def test_small_values_stay_beside_large_ones() -> None:
    """What is cut because it is large does not take along what stands behind it."""
    payload: dict[str, Any] = {**{f"large{number}": "x" * 190 for number in range(9)}, "small": 5, "set": {1}}
    (left,), _ = detached(payload, limit=600)

    assert (5, [1]) == (left["small"], left["set"])
    assert len(encode_json(left)) <= 600


def test_one_bad_value_costs_only_itself() -> None:
    """What is nested too deep, or cannot be read, is marked. What stands beside it is kept."""
    value = {"deep": _nested(MAX_DEPTH + 10), "bad": _Raises(), "odd": {1}, "plain": [1, {"a": 2}]}
    (left,), _ = detached(value)

    for found in (left, decode_json(encode_json(value))):
        assert ([1], [1, {"a": 2}]) == (found["odd"], found["plain"])
        assert CUT_MARKER in encode_json(found["deep"])
        assert found["bad"].startswith(CUT_MARKER)


def test_a_huge_text_tells_its_length() -> None:
    """A text that takes long to measure in bytes is measured in characters."""
    (left,), cut = detached({"a": "x" * 4_000_000})

    assert ({"a": f"{CUT_MARKER}, 4000000 characters"}, 1) == (left, cut)


@pytest.mark.parametrize("kind", [_in_list, _in_object], ids=["list", "object"])
@pytest.mark.parametrize("wide", [False, True])
def test_nesting_up_to_the_limit_comes_back(kind: Callable[[Any], Any], wide: bool) -> None:  # noqa: FBT001
    """Nesting of `MAX_DEPTH` levels is kept, beside many shallow values too."""
    deep = _nested(MAX_DEPTH - 1, kind=kind)
    value = [deep, *([{"brackets in text": '[[{{\\"]'}] * 600 if wide else [])]

    assert value == decode_json(encode_json(value))


def test_the_limit_holds_where_recursion_may_go_deeper() -> None:
    """The marker tells the limit where the interpreter allows for more than `MAX_DEPTH` levels."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10 * before)
    try:
        text = encode_json({"deep": _nested(MAX_DEPTH), "odd": {1}})
    finally:
        sys.setrecursionlimit(before)

    assert f"{CUT_MARKER}, nested deeper than {MAX_DEPTH} levels" in text
    assert text.count("[") == MAX_DEPTH  # one of them is the set's


def test_brackets_inside_texts_are_not_nesting() -> None:
    """A text full of brackets and quotes is one value, whatever it looks like."""
    value = ['[{"' * 2_000, {'\\"[[[': "]]]\\"}]

    assert value == decode_json(encode_json(value))


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**200), 10**4_000, -0.0, 5e-324, 1.7976931348623157e308, "\ud800", {"": 1, "a.b": {"": []}}],
    ids=lambda value: repr(value)[:24],
)
def test_edges_of_json_come_back(value: object) -> None:
    """Integers beyond 64 bits, extreme floats, lone surrogates, empty and dotted keys come back equal."""
    assert repr(value) == repr(decode_json(encode_json({"v": value}))["v"])


def test_detached_payloads_share_nothing() -> None:
    """Changing the original's inside does not change the copy; empty payloads stay empty."""
    original: dict[str, Any] = {"list": [1], "map": {"a": {"b": 1}}}
    (copy, empty), cut = detached(original, {})
    original["list"].append(2)
    original["map"]["a"]["b"] = 9

    assert (copy, empty, cut) == ({"list": [1], "map": {"a": {"b": 1}}}, {}, 0)


def test_detached_payloads_are_cut_to_the_limit_together() -> None:
    """The limit is for all payloads together; the largest value goes first."""
    (small, large), cut = detached({"a": "x" * 100}, {"b": "y" * 500, "c": 1}, limit=300)

    assert (small, cut) == ({"a": "x" * 100}, 1)
    assert {"b": f"{CUT_MARKER}, 502 bytes", "c": 1} == large


def test_too_many_keys_leave_their_number() -> None:
    """Where the keys alone are too much, one marker tells their number, and each counts as cut once."""
    payload: dict[str, Any] = {f"key-{number}": "x" * 60 for number in range(100)}
    fitted, cut = fit_payloads((payload, {}), 300)

    assert (fitted, cut) == (({CUT_MARKER: "100 keys"}, {}), 100)


def test_a_key_too_large_leaves_its_number() -> None:
    """Where a key is too much even beside a marker, nothing of the payload is left but the number."""
    assert (({CUT_MARKER: "1 keys"},), 1) == fit_payloads(({"k" * 200: "x" * 100},), 150)


@pytest.mark.parametrize(
    ("text", "limit", "fitted"),
    [
        ("short", 5, "short"),
        ("", 0, ""),
        ("x" * 100, 40, "x" * 14 + " [run-log: cut, 100 bytes]"),
        ("€" * 40, 40, "€" * 4 + " [run-log: cut, 120 bytes]"),
        ("x" * 100, 3, " [r"),
        ("\ud800", 6, "\\ud800"),
        ("\ud800" * 20, 40, "\\ud800\\ud800\\u [run-log: cut, 120 bytes]"),
    ],
)
def test_text_is_cut_with_a_marker(text: str, limit: int, fitted: str) -> None:
    """A text over the limit keeps its beginning, in whole characters, and tells its size."""
    assert fitted == fit_text(text, limit)


def test_what_is_wrong_is_told_in_short() -> None:
    """Errors of a foreign object, however long, make a message that can be logged."""

    class Verbose:
        def __getattr__(self, name: str) -> NoReturn:
            raise RuntimeError(name * 10_000)

    with pytest.raises(InvalidRunError, match="a Verbose is not a run: id: ") as caught:
        validated(Verbose())

    assert len(str(caught.value)) == 2_000
    assert "; workflow_id: " in str(caught.value)
