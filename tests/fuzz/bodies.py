"""Messages that nobody should publish, and some that everybody does: each made of its seed and number."""

from __future__ import annotations

import base64
import codecs
import copy
import functools
import json
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from run_log.core import Message, RunStatus, TriggerType, encode_event
from run_log.testing import a_run, an_event

HYPOTHESIS_SHARE: Final = 20
"""One value of Hypothesis' own making for so many bodies."""

MAX_VALUES: Final = 2_000

_DEEPEST: Final = 120_000
_AROUND: Final = 12

_NUMBERS: Final = (
    *("1" + "0" * 400, "9" * 4_299, "9" * 4_300, "9" * 4_301, "-" + "9" * 4_300, "1" * 6_000),
    *("1e308", "1e309", "-1e999", "1e-999", "-0", "-0.0", "-1", "1.8e18", "0x10", "01"),
    *("4611686018427387904", "18446744073709551616", "NaN", "Infinity", "-Infinity"),
)
_ODD: Final[list[Any]] = [
    *(None, True, False, 0, -1, 1.5, 2**63, 10**30),
    *("", " ", "\x00", "\ud800", "\udcff\U0001f600", "x" * 60_000, "success", "running"),
    *("2026-03-04T12:00:00Z", "2026-03-04T12:00:00", "2026-W10-3"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
    *("run-log.run-state.v0", "run-log.run-state.v7", "run-log.run-state.v999999999"),
    *([], {}, [1], [[]], {"": None}, {"\ud800": "\ud800"}, {"run": {"run": {}}}),
    {"reason": ["x"], "deadline": 10**30},
]
_ENCODINGS: Final = (
    *("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"),
    *("latin-1", "utf-7", "cp037"),
)
_NAMES: Final = (
    *("ce-type", "ce-source", "ce-subject", "ce-id", "traceparent", "tracestate", "googclient_traceparent"),
    *("run-log-reason", "run-log-error", "run-log-attributes-left-out"),
    *("CloudPubSubDeadLetterSourceDeliveryCount", "", "\ud800", "n" * 300),
)
_VALUES: Final = (
    *("", "\x00", "\ud800", "é" * 2_000, "9" * 5_000, "//run-log/workflows/%FF%", "runs/"),
    *("run-log.run-state.v1", "run-log.run-state.v2", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"),
)


class Body(NamedTuple):
    """A message, and what was done to make it."""

    kind: str
    message: Message


class Bodies:
    """Makes any number of messages, each always the same."""

    def __init__(self, *, seed: int, count: int) -> None:
        self._seed = seed
        self._values = values_of_hypothesis(seed, min(count // HYPOTHESIS_SHARE + 1, MAX_VALUES))

    def __call__(self, number: int) -> Body:
        """Return the message with this number."""
        chance = random.Random(f"{self._seed}/{number}")
        make = chance.choice(_MAKERS)
        return Body(make.__name__.removeprefix("_"), make(chance, self._values))


def values_of_hypothesis(start: int, count: int) -> list[Any]:
    """Return JSON values that Hypothesis makes of a seed."""
    made: list[Any] = []
    texts = st.text(st.characters(codec=None), max_size=20)
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | texts,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
        max_leaves=20,
    )

    @seed(start)
    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(values)
    def collect(value: Any) -> None:
        made.append(value)

    collect()
    return made


@functools.cache
def parser_depth() -> int:
    """Return how deep the JSON parser of this Python reads lists, from the beginning of a stack."""
    with ThreadPoolExecutor(1) as beside:
        return beside.submit(_parser_depth).result()


def _parser_depth() -> int:
    shallow, deep = 1, _DEEPEST
    while shallow + 1 < deep:
        middle = (shallow + deep) // 2
        try:
            json.loads("[" * middle + "]" * middle)
        except RecursionError:
            deep = middle
        else:
            shallow = middle
    return shallow


def _good(chance: random.Random, _values: Sequence[Any]) -> Message:
    return encode_event(
        an_event(
            a_run(
                id=f"r{chance.randrange(50)}",
                workflow_id=f"w{chance.randrange(3)}",
                status=chance.choice(list(RunStatus)),
                trigger_type=chance.choice(list(TriggerType)),
                result={"lines": chance.randrange(9), "names": ["a", {"b": None}]},
                error=chance.choice([None, "it\u2019s gone"]),
            ),
            hlc=chance.randrange(2**50),
            event_id=f"e{chance.randrange(2**50)}",
        )
    )


def _version_0(chance: random.Random, values: Sequence[Any]) -> Message:
    run = _json(_good(chance, values))["run"]
    return _message({"type": "run-log.run-state.v0", **run})


def _either(chance: random.Random, values: Sequence[Any]) -> Message:
    return chance.choice((_good, _version_0))(chance, values)


def _random_bytes(chance: random.Random, _values: Sequence[Any]) -> Message:
    return Message(data=chance.randbytes(chance.randrange(200)))


def _mutated_bytes(chance: random.Random, values: Sequence[Any]) -> Message:
    message = _either(chance, values)
    return Message(data=mutated(chance, message.data), attributes=message.attributes)


def mutated(chance: random.Random, content: bytes) -> bytes:
    """Return *content* with some pieces of it left out, doubled or replaced; now and then its beginning."""
    data = bytearray(content)
    for _ in range(chance.randrange(1, 5)):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.randrange(12))
        piece = bytes(data[start:end])
        data[start:end] = chance.choice(
            (b"", piece * 2, chance.randbytes(len(piece)), b'"', b"{", b"]", b",", b"\\u", b"\xff", b"\x00")
        )
        if chance.random() < 0.05:
            del data[start:]
    return bytes(data)


def _wrong_fields(chance: random.Random, values: Sequence[Any]) -> Message:
    body = _json(_either(chance, values))
    for _ in range(chance.randrange(1, 4)):
        place = chance.choice(_objects(body))
        if place:
            name = chance.choice(list(place))
            if chance.random() < 0.1:
                del place[name]
            else:
                place[name] = copy.deepcopy(chance.choice(_ODD))
    return _message(body)


def _of_hypothesis(chance: random.Random, values: Sequence[Any]) -> Message:
    value = chance.choice(values)
    if chance.random() < 0.3:
        return _message(value)
    body = _json(_either(chance, values))
    place = chance.choice(_objects(body))
    place[chance.choice([*place, "more"])] = copy.deepcopy(value)
    return _message(body)


def _huge_numbers(chance: random.Random, values: Sequence[Any]) -> Message:
    return _spliced(chance, values, chance.choice(_NUMBERS))


def _nested(chance: random.Random, values: Sequence[Any]) -> Message:
    around = chance.choice((parser_depth(), sys.getrecursionlimit(), 333, 500, parser_depth() // 2))
    near = around + chance.randint(-_AROUND, _AROUND)
    # A few of the deepest are enough: each takes as long as a hundred others.
    depth = chance.choice((*(near,) * 6, *(around * 3 // 4,) * 3, _DEEPEST))
    begin, end = chance.choice((("[", "]"), ('{"a":', "}"), ('[{"b":', "}]"), ('[1,{"":', "}]")))
    levels = max(1, depth // begin.count("[") if begin.startswith("[{") else depth)
    inner = chance.choice(("1", "NaN", '"x"', "[]"))
    nested = begin * levels + inner + end * levels
    if chance.random() < 0.1:
        return Message(data=nested.encode())
    return _spliced(chance, values, nested)


def _repeated_keys(chance: random.Random, values: Sequence[Any]) -> Message:
    body = _json(_either(chance, values))
    place = chance.choice(_objects(body))
    name = chance.choice(list(place) or ["type"])
    twice = f'{json.dumps(name)}: {json.dumps(chance.choice(_ODD))}, "MARK": 1'
    place["MARK"] = 1
    return Message(data=json.dumps(body).replace('"MARK": 1', twice, 1).encode())


def _odd_encodings(chance: random.Random, values: Sequence[Any]) -> Message:
    text = json.dumps(_json(_either(chance, values)), ensure_ascii=False)
    data = text.encode(chance.choice(_ENCODINGS), "replace")
    begin = chance.choice((b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, b"\x00", b" \n\t", b")]}'\n"))
    return Message(data=begin + data + chance.choice((b"", b"\n", b"\x00", b"{}")))


def _lone_surrogates(chance: random.Random, values: Sequence[Any]) -> Message:
    lone = chance.choice(('"\\ud800"', '"\\udfff\\ud800"', '{"\\udc00": 1}', '"\ud800"'))
    return _spliced(chance, values, lone.encode(errors="surrogatepass"))


def _odd_attributes(chance: random.Random, values: Sequence[Any]) -> Message:
    message = _either(chance, values)
    changed = {chance.choice(_NAMES): chance.choice(_VALUES) for _ in range(chance.randrange(1, 6))}
    many = {f"a{number}": "x" for number in range(chance.choice((0, 0, 120)))}
    body = _json(message)
    if chance.random() < 0.5:
        body.pop("type", None)
    return _message(body, {**message.attributes, **many, **changed})


_MAKERS: Final[tuple[Callable[[random.Random, Sequence[Any]], Message], ...]] = (
    *(_good, _version_0, _random_bytes, _mutated_bytes, _mutated_bytes),
    *(_wrong_fields, _wrong_fields, _wrong_fields, _of_hypothesis, _of_hypothesis),
    *(_huge_numbers, _nested, _repeated_keys, _odd_encodings, _lone_surrogates, _odd_attributes),
)


def _spliced(chance: random.Random, values: Sequence[Any], text: str | bytes) -> Message:
    """Return a good message in which *text* stands for one value."""
    body = _json(_either(chance, values))
    place = chance.choice(_objects(body))
    place[chance.choice([*place, "more"])] = "MARK"
    piece = text if isinstance(text, bytes) else text.encode()
    return Message(data=json.dumps(body).encode().replace(b'"MARK"', piece))


def _objects(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return *body* and the objects in it."""
    found = [body]
    for place in found:
        found += [value for value in place.values() if type(value) is dict]
    return found


def _json(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(message.data)
    return body


def _message(body: object, attributes: dict[str, str] | None = None) -> Message:
    return Message(data=json.dumps(body).encode(), attributes=attributes or {})


def envelope(chance: random.Random, message: Message) -> bytes:
    """Return the push request's body around *message*, now and then with something wrong in it."""
    inner: dict[str, Any] = {
        "data": base64.b64encode(message.data).decode(),
        "attributes": dict(message.attributes),
        "messageId": "1",
        "publishTime": "2026-01-01T00:00:00.123Z",
    }
    around: dict[str, Any] = {"message": inner, "deliveryAttempt": 1}
    if chance.random() < 0.3:
        place = chance.choice((inner, around))
        name = chance.choice(list(place))
        place[name] = "MARK"
        text = chance.choice((*_NUMBERS, *map(json.dumps, _ODD), "[" * _DEEPEST))
        return json.dumps(around).replace('"MARK"', text).encode()
    return json.dumps(around).encode()
