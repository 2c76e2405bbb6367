from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from pydantic import BaseModel

from run_log.core import CUT_MARKER, MAX_DEPTH, decode_json, detached, encode_json, fit_payloads, fit_text


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


class _Colour(enum.Enum):
    RED = "red"


class _Level(enum.IntEnum):
    HIGH = 3


class _Model(BaseModel):
    at: dt.datetime


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
        (float("nan"), "NaN"),
        ([float("inf"), float("-inf")], ["Infinity", "-Infinity"]),
        ({1}, [1]),
        ((1, (2,)), [1, [2]]),
        (dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC), "2026-01-02T03:04:05.000006Z"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (decimal.Decimal("1.50"), "1.50"),
        (b"\xff\x00", "_wA="),
        ([_Colour.RED, _Level.HIGH], ["red", 3]),
        (_Model(at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)), {"at": "2026-01-01T00:00:00Z"}),
        ({1: "a", None: "b", False: "c", 1.5: "d"}, {"1": "a", "null": "b", "false": "c", "1.5": "d"}),
        ({_Colour.RED: 1, (1, 2): 2, dt.date(2026, 1, 2): 3}, {"red": 1, "[1,2]": 2, "2026-01-02": 3}),
        ({_Level.HIGH: 1, "x": float("nan")}, {"3": 1, "x": "NaN"}),
    ],
)
def test_what_json_cannot_hold_becomes_its_nearest_form(value: object, decoded: object) -> None:
    """A value that is not JSON comes back in the nearest readable form."""
    assert decoded == _strict(encode_json(value))


@pytest.mark.parametrize(
    "value",
    [
        _Raises(),
        {"key": _Raises(), "other": 1},
        {_Raises(): 1},
        _BadDict(a=1),
        [_BadDict(a=1), float("nan")],
        _BadInt(5),
        [_BadInt(5), float("nan")],
        _circular_list(),
        _circular_dict(),
        10**10_000,
        {10**10_000: [10**10_000]},
        _nested(5_000),
        _nested(5_000, kind=_in_object),
        _nested(5_000, kind=_in_tuple),
        (item for item in [1, 2]),
        object(),
        sys,
        test_what_json_cannot_hold_becomes_its_nearest_form,
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


def test_one_bad_value_costs_only_itself() -> None:
    """What stands beside a value that cannot be read is kept."""
    decoded = decode_json(encode_json({"good": [1, {"a": 2}], "bad": _Raises()}))

    assert decoded["good"] == [1, {"a": 2}]
    assert decoded["bad"].startswith(CUT_MARKER)


@pytest.mark.parametrize("kind", [_in_list, _in_object], ids=["list", "object"])
@pytest.mark.parametrize("wide", [False, True])
def test_nesting_up_to_the_limit_comes_back(kind: Callable[[Any], Any], wide: bool) -> None:  # noqa: FBT001
    """Nesting of `MAX_DEPTH` levels is kept, beside many shallow values too."""
    deep = _nested(MAX_DEPTH - 1, kind=kind)
    value = [deep, *([{"brackets in text": '[[{{\\"]'}] * 600 if wide else [])]

    assert value == decode_json(encode_json(value))


def test_one_level_more_is_cut_with_a_marker() -> None:
    """What lies beyond `MAX_DEPTH` levels is replaced by a text that says so."""
    text = encode_json(_nested(MAX_DEPTH + 1))

    assert CUT_MARKER in text
    assert text.count("[") <= MAX_DEPTH


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


def test_text_that_is_no_json_is_refused() -> None:
    """Decoding anything but JSON raises `ValueError`."""
    with pytest.raises(ValueError, match="Expecting"):
        decode_json("{nope")


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


def test_cutting_leaves_the_original_alone() -> None:
    """The payloads given are not changed."""
    payload: dict[str, Any] = {"a": ["x" * 500], "b": 1}
    fit_payloads((payload,), 200)

    assert payload == {"a": ["x" * 500], "b": 1}


def test_cutting_twice_changes_nothing_more() -> None:
    """What was cut to a limit fits it."""
    fitted, _ = fit_payloads(({"a": "x" * 500, "b": "y" * 400},), 200)

    assert (fitted, 0) == fit_payloads(fitted, 200)


@pytest.mark.parametrize(
    ("text", "limit", "fitted"),
    [
        ("short", 5, "short"),
        ("", 0, ""),
        ("x" * 100, 40, "x" * 14 + " [run-log: cut, 100 bytes]"),
        ("€" * 40, 40, "€" * 4 + " [run-log: cut, 120 bytes]"),
        ("x" * 100, 3, " [r"),
    ],
)
def test_text_is_cut_with_a_marker(text: str, limit: int, fitted: str) -> None:
    """A text over the limit keeps its beginning, in whole characters, and tells its size."""
    assert fitted == fit_text(text, limit)
