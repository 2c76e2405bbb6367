"""One set of rules: what a value becomes as a payload, under a key, as a key, as a text and as an id."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import os
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, NamedTuple, TypedDict, cast

import numpy  # noqa: ICN001 - rare enough to be written out
import pytest
from pydantic import BaseModel, RootModel, SecretStr, field_serializer

from run_log.core import InvalidRunError, WorkflowRun
from run_log.core.ids import as_text, id_text
from run_log.core.models import snapshot, validated
from run_log.core.nearest import CUT_MARKER, OUTER_KEY
from run_log.core.payload import decode_json, encode_json

from .builders import NOON, make_run, run_fields


class _Model(BaseModel):
    lines: int = 128
    names: set[str] = {"a"}


class _Broken(BaseModel):
    lines: int = 128

    @field_serializer("lines")
    def _told(self, value: int) -> int:
        raise RuntimeError(value)


class _Lines(RootModel[list[set[int]]]):
    pass


@dataclasses.dataclass
class _Row:
    lines: int = 128


class _Pair(NamedTuple):
    lines: int = 128
    rest: object = None


class _Typed(TypedDict):
    lines: int


class _Kind(enum.Enum):
    TEXT = "text"
    NUMBER = 7
    LIST = ["a"]  # noqa: RUF012 - a value that is none of the usual
    MAP = {"lines": 128}  # noqa: RUF012


class _Level(enum.IntEnum):
    HIGH = 3


class _Headers(Mapping[str, str]):
    """As servers have them: a name may come twice."""

    def __getitem__(self, key: str) -> str:
        return str(dict(self.items())[key])

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.items())

    def items(self) -> Any:
        return [("via", "a"), ("via", "b"), ("host", "c"), ("via", "d")]


class _Raises(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise KeyError(key)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("gone")


LINES = {"lines": 128}
WITH_KEYS: list[tuple[object, dict[str, Any]]] = [
    (_Model(), {"lines": 128, "names": ["a"]}),
    (_Broken(), LINES),
    (_Row(), LINES),
    (_Pair(), {"lines": 128, "rest": None}),
    (_Typed(lines=128), LINES),
    (collections.OrderedDict(LINES), LINES),
    (collections.defaultdict(int, LINES), LINES),
    (collections.Counter(LINES), LINES),
    (collections.UserDict(LINES), LINES),
    (collections.ChainMap({}, LINES), LINES),
    (types.MappingProxyType(LINES), LINES),
    (_Kind.MAP, LINES),
    (_Headers(), {"via": "a", "via (2)": "b", "host": "c", "via (3)": "d"}),
    ({"\ud800": {"\udfff": 1}}, {"\ud800": {"\udfff": 1}}),
]
WITHOUT_KEYS: list[tuple[object, object]] = [
    ([1, {2}], [1, [2]]),
    ((1,), [1]),
    ("text", "text"),
    (5, 5),
    (0, 0),
    (False, False),
    (float("nan"), "NaN"),
    (b"ab", "YWI="),
    (_Kind.TEXT, "text"),
    (_Kind.LIST, ["a"]),
    (_Lines([{1}]), [[1]]),
    (range(3), "range(0, 3)"),
    ({"a": 1}.keys(), ["a"]),
    (dt.timedelta(hours=1), "PT1H"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (PurePosixPath("/a/\udcff"), "/a/\udcff"),
    (SecretStr("hunter2"), "**********"),
    (ValueError("bad"), "ValueError('bad')"),
    (numpy.array([[1, 2]]), [[1, 2]]),
    (numpy.float64(0.5), 0.5),
    (SimpleNamespace(a=1), "namespace(a=1)"),
    (_Raises(), f"{CUT_MARKER}, a _Raises that raised RuntimeError"),
]
KEYS: list[tuple[object, str]] = [
    ("text", "text"),
    ("\udcff", "\udcff"),
    (1, "1"),
    (None, "null"),
    (True, "true"),
    (1.5, "1.5"),
    (float("inf"), "Infinity"),
    (_Kind.TEXT, "text"),
    (_Kind.NUMBER, "7"),
    (_Level.HIGH, "3"),
    ((1, "a"), '[1,"a"]'),
    (frozenset({1}), "[1]"),
    (b"name\xff", "name\\xff"),
    ((b"set", (b"cookie",)), '["set",["cookie"]]'),
    (dt.date(2026, 1, 2), "2026-01-02"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (PurePosixPath("a/b"), "a/b"),
    (numpy.int64(5), "5"),
]

Way = Callable[[object], WorkflowRun]
WAYS: dict[str, Way] = {
    "mapping": lambda value: snapshot(run_fields(result=value)),
    "attributes": lambda value: snapshot(SimpleNamespace(**run_fields(result=value))),
    "constructor": lambda value: snapshot(WorkflowRun(**run_fields(result=value))),
    "made without validation": lambda value: snapshot(make_run().model_copy(update={"result": value})),
}


def _assigned(value: object) -> WorkflowRun:
    run = make_run()
    run.result = value  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue] - platforms do
    return snapshot(run)


WAYS["assignment"] = _assigned


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("value", "kept"), WITH_KEYS, ids=lambda value: type(value).__name__)
def test_what_has_keys_is_a_payload(value: object, kept: dict[str, Any], way: Way) -> None:
    """What has keys is a payload as it is, and the same as under a key, whichever way it comes."""
    assert kept == way(value).result
    assert kept == way({"k": value}).result["k"]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("value", "kept"), WITHOUT_KEYS, ids=lambda value: type(value).__name__)
def test_what_has_no_keys_stands_under_one(value: object, kept: object, way: Way) -> None:
    """What has no keys stands under `OUTER_KEY`, in the form it would have under any."""
    assert {OUTER_KEY: kept} == way(value).result
    assert kept == way({"k": value}).result["k"]


def test_a_payload_without_keys_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """One line says of which run and field a payload was that has no keys; None is an empty one, untold."""
    validated(run_fields(trigger_data=None, result=[1]))

    (record,) = [vars(record) for record in caplog.records]
    assert "run_log_payload_without_keys" == record["event"]
    assert ("w1", "r1", "result", OUTER_KEY) == tuple(
        record[name] for name in ("workflow_id", "run_id", "field", "kept_as")
    )


@pytest.mark.parametrize(("key", "text"), KEYS, ids=repr)
def test_a_key_is_one_text_at_any_depth(key: object, text: str) -> None:
    """A key that is no text becomes the same text outside and inside, in any mapping."""
    for mapping in ({key: 1}, types.MappingProxyType({key: 1}), collections.OrderedDict({key: 1})):
        run = snapshot(run_fields(result=mapping, trigger_data={"deep": [{"er": mapping}]}))

        assert {text: 1} == run.result
        assert {"deep": [{"er": {text: 1}}]} == run.trigger_data


def test_keys_that_are_the_same_text_are_both_kept() -> None:
    """Where two keys are the same text, the text keeps it and a number follows it for the others."""
    mapping = {1: "int", "1": "text", "1 (2)": "other", _Kind.NUMBER: "enum", 7: "seven", None: 0, "null": 1}
    kept = {
        "1 (3)": "int",
        "1": "text",
        "1 (2)": "other",
        "7": "enum",
        "7 (2)": "seven",
        "null (2)": 0,
        "null": 1,
    }
    run = snapshot(run_fields(result=mapping, trigger_data={"deep": [mapping]}))

    assert kept == run.result == decode_json(encode_json(mapping))
    assert {"deep": [kept]} == run.trigger_data
    assert kept == snapshot(run_fields(result=kept)).result


def test_many_keys_that_are_no_texts_are_kept() -> None:
    """As many integers for keys as fit into a document are all kept, outside and inside, and no more."""
    numbers = dict.fromkeys(range(60_000), 1)
    texts = {str(number): 1 for number in numbers}

    assert texts == snapshot(run_fields(result=numbers)).result
    assert {"deep": [texts]} == snapshot(run_fields(result={"deep": [numbers]})).result
    assert [CUT_MARKER] == list(snapshot(run_fields(result=dict.fromkeys(range(300_000), 1))).result)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        (os.fsdecode(b"invoice-\xff.pdf"), "invoice-\\udcff.pdf"),
        ("\U0001f600é", "\U0001f600é"),
        (b"invoice-\xff", "invoice-\\xff"),
        (bytearray(b"b"), "b"),
        (4711, "4711"),
        (True, "true"),
        (1.5, "1.5"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("/in/\udcff"), "/in/\\udcff"),
        (_Kind.TEXT, "text"),
        (_Kind.NUMBER, "7"),
        (_Level.HIGH, "3"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (NOON, "2026-03-04T12:00:00Z"),
        (decimal.Decimal("1.50"), "1.50"),
        (numpy.int64(5), "5"),
        (numpy.str_("s"), "s"),
    ],
    ids=repr,
)
def test_an_id_is_one_text(value: object, text: str) -> None:
    """What has one text is an id, and taken as one wherever a run is."""
    assert text == id_text(value)
    for taken in (
        validated(run_fields(id=value, workflow_id=value)),
        validated(SimpleNamespace(**run_fields(id=value, workflow_id=value))),
        WorkflowRun(**run_fields(id=value, workflow_id=value)),
    ):
        assert (text, text) == taken.key


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", b"", [], ["a"], {}, {"a": 1}, float("nan"), float("-inf"), 1 << 40_000),
        *(_Pair(), _Row(), _Model(), _Kind.LIST, SecretStr("x"), ValueError("x"), object(), len, int),
        *((letter for letter in "ab"), bytes(1_000_000)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_text_is_no_id(value: object) -> None:
    """What has no text, or none of its own, is no id: an error names the field. An iterator is not read."""
    assert not id_text(value)
    with pytest.raises(InvalidRunError, match="id: "):
        validated(run_fields(id=value))
    assert not isinstance(value, Iterator) or ["a", "b"] == list(cast("Iterator[str]", value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("\ud800?", "\\ud800?"),
        (5, "5"),
        (_Kind.TEXT, "text"),
        (b"\xff", "\\xff"),
        (ValueError("bad"), "ValueError('bad')"),
        ({"a": {1}}, '{"a":[1]}'),
        (_Raises(), f"{CUT_MARKER}, a _Raises that raised RuntimeError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_text_is_the_nearest_one(value: object, text: str) -> None:
    """Errors and what a pause says may be anything; each is kept as the text that it is as a key."""
    """Errors and what a pause says may be anything; each is kept as the text that it is as a key."""
    run = validated(run_fields(error=value, pause={"reason": value, "assignee": value, "comment": value}))

    assert text == as_text(value) == run.error
    assert run.pause is not None
    assert (text, text, text) == (run.pause.reason, run.pause.assignee, run.pause.comment)


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        *((none, 0) for none in (-419_944.1, -1, "-5", None, 10**400, dt.timedelta(seconds=-2))),
        *((none, 0) for none in map(float, ("nan", "inf", "-inf"))),
        *((none, 0) for none in (decimal.Decimal("NaN"), numpy.float32("nan"))),
        *((decimal.Decimal("2.5"), 2.5), (numpy.float32(2.5), 2.5), (1.8e18, 1.8e18)),
        *((dt.timedelta(seconds=2), 2_000), (numpy.timedelta64(2, "s"), 2_000)),
    ],
    ids=repr,
)
def test_no_duration_is_negative(value: object, milliseconds: float) -> None:
    """A duration that is negative, or no length of time, is 0; one of Python's or numpy's own is taken."""
    for taken in (validated(run_fields(duration_ms=value)), WorkflowRun(**run_fields(duration_ms=value))):
        assert milliseconds == taken.duration_ms
        assert "-" not in str(taken.duration_ms)
