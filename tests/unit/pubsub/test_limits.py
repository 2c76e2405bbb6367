from __future__ import annotations

from collections.abc import Mapping

import pytest

from run_log.core import Message, encode_event
from run_log.core.wire import message_bytes, message_fault
from run_log.testing import a_run, an_event

_MANY = {f"name-{number}": "" for number in range(101)}


@pytest.mark.parametrize(
    ("data", "attributes", "fault"),
    [
        (b"", {}, "neither a body nor an attribute"),
        (b"x", _MANY, "101 attributes; the most are 100"),
        (b"x", {"": "a"}, "name has 0 bytes"),
        (b"x", {"n" * 257: "a"}, "name has 257 bytes"),
        (b"x", {"é" * 129: "a"}, "name has 258 bytes"),
        (b"x", {"a": "v" * 1_025}, "'a' has 1025 bytes"),
        (b"x", {"a": "é" * 513}, "'a' has 1026 bytes"),
        (b"x", {"googa": "v"}, "Google's own"),
        (b"x", {"a": "\ud800"}, "lone surrogates"),
        (b"x", {"\ud800": "a"}, "lone surrogates"),
        (b"x" * 10_000_001, {}, "10000001 bytes"),
        (b"x" * 9_999_990, {"a": "é"}, "10000001 bytes"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_what_pubsub_refuses(data: bytes, attributes: Mapping[str, str], fault: str) -> None:
    """A message beyond one of Pub/Sub's limits is told apart, with the limit."""
    told = message_fault(Message(data=data, attributes=attributes))

    assert told is not None
    assert fault in told


@pytest.mark.parametrize(
    ("data", "attributes"),
    [
        (b"x", {}),
        (b"", {"a": ""}),
        (b"x", dict(list(_MANY.items())[:100])),
        (b"x", {"n" * 256: "v" * 1_024}),
        (b"x" * 10_000_000, {}),
        (b"x" * 9_999_989, {"a": "é"}),
    ],
    ids=["body", "attribute", "many", "long", "large", "large with an attribute"],
)
def test_what_pubsub_takes(data: bytes, attributes: Mapping[str, str]) -> None:
    """A message at a limit is taken."""
    assert message_fault(Message(data=data, attributes=attributes)) is None


def test_what_a_message_takes() -> None:
    """A message takes its body, the UTF-8 bytes of its attributes, and a frame for each of them."""
    message = Message(data=b"xyz", attributes={"a": "é", "é": ""})

    assert 3 + (1 + 2 + 8) + (2 + 0 + 8) == message_bytes(message)


@pytest.mark.parametrize(
    "text", ["w", "w" * 1_024, "é" * 512, "\x00\n", "%"], ids=["w", "long", "é", "nul", "%"]
)
def test_events_stay_within_the_limits(text: str) -> None:
    """Whatever a run is called, its event is a message that Pub/Sub takes."""
    event = an_event(a_run(workflow_id=text, id=text, result={"x": "y" * 5_000_000}))

    assert message_fault(encode_event(event.model_copy(update={"traceparent": "t" * 2_000}))) is None
