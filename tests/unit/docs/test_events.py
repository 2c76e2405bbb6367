from __future__ import annotations

import json

from run_log.core import Message, RunStatus, decode_event, encode_event
from run_log.core.history import MAX_HISTORY
from run_log.core.nearest import CUT_MARKER, MAX_PAYLOAD_BYTES
from run_log.core.payload import MAX_TEXT_BYTES, fit_text
from run_log.core.wire import SCHEMA_VERSION
from run_log.testing import an_event

from .repository import REPOSITORY, codes, fenced, one_line, read, table

EVENTS = read("docs/events.md")
TEXT = one_line(EVENTS)
BODY = fenced(EVENTS, "json").encode()


def test_the_example_is_what_would_be_published() -> None:
    """The documented body is an event without any attribute, and exactly what is published of it."""
    event = decode_event(Message(data=BODY, attributes={}))

    assert ("invoices/sync", "invoice-1") == (event.run.workflow_id, event.run.id)
    assert (RunStatus.SUCCESS, {"lines": 128}) == (event.run.status, event.run.result)
    assert json.loads(BODY) == json.loads(encode_event(event).data)


def test_attributes() -> None:
    """Every attribute of a published message is documented, and none that there is not; so is the schema."""
    rows = {name: codes(row[1]) for row in table(EVENTS, "attribute") for name in codes(row[0])}
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}

    message = encode_event(an_event().model_copy(update=trace))

    assert set(message.attributes) == set(rows)
    for name in ("ce-specversion", "ce-type", "ce-dataschema", "content-type"):
        assert message.attributes[name] in rows[name]
    (schema,) = {code for code in codes(EVENTS) if code.endswith(f"schemas/run-state-{SCHEMA_VERSION}.json")}
    assert (REPOSITORY / schema).is_file()


def test_version_0() -> None:
    """A bare run with the documented fields of version 0, and no others, is decoded."""
    said = TEXT.split("Version 0 is a bare run: `")[1].split("`")[0]
    fields = json.loads(said.replace("...", '""'))
    run = json.loads(BODY)["run"]

    body = {**{name: run.get(name) for name in fields}, "type": fields["type"]}
    event = decode_event(Message(data=json.dumps(body).encode(), attributes={}))

    assert "invoice-1" == event.run.id


def test_sizes() -> None:
    """The documented sizes are the code's: payloads, texts and the history."""
    assert f"together keep {MAX_PAYLOAD_BYTES:,} bytes" in TEXT
    assert f"an error {MAX_TEXT_BYTES // 1_024} KiB" in TEXT
    assert f"begins with `{CUT_MARKER}`" in TEXT
    assert CUT_MARKER in fit_text("x" * (MAX_TEXT_BYTES + 1))
    assert f"the newest {MAX_HISTORY} kept" in TEXT
