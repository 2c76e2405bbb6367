from __future__ import annotations

import json

from run_log.core import Message, RunStatus, decode_event, encode_event
from run_log.core.law import MAX_HISTORY
from run_log.core.nearest import CUT_MARKER, MAX_PAYLOAD_BYTES
from run_log.core.payload import MAX_TEXT_BYTES, fit_text
from run_log.core.wire import EVENT_TYPE, SCHEMA_VERSION
from run_log.testing import an_event

from .repository import REPOSITORY, codes, fenced, one_line, read, section, table

EVENTS = read("docs/events.md")
BODY = fenced(EVENTS, "json").encode()
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}


def test_the_example_is_an_event() -> None:
    """The documented body is decoded as it stands, without any attribute."""
    event = decode_event(Message(data=BODY, attributes={}))

    assert ("invoices/sync", "invoice-1") == (event.run.workflow_id, event.run.id)
    assert RunStatus.SUCCESS is event.run.status
    assert {"lines": 128} == event.run.result


def test_the_example_is_what_would_be_published() -> None:
    """The documented body has exactly the fields of an event that is published, and its values."""
    event = decode_event(Message(data=BODY, attributes={}))

    assert json.loads(BODY) == json.loads(encode_event(event).data)


def test_attributes() -> None:
    """Every attribute of a published message is documented, and none that there is not."""
    rows = {name: codes(row[1]) for row in table(EVENTS, "attribute") for name in codes(row[0])}

    message = encode_event(an_event().model_copy(update=TRACE))

    assert set(message.attributes) == set(rows)
    assert message.attributes["ce-specversion"] in rows["ce-specversion"]
    assert message.attributes["ce-type"] in rows["ce-type"]
    assert message.attributes["ce-dataschema"] in rows["ce-dataschema"]
    assert message.attributes["content-type"] in rows["content-type"]


def test_the_version() -> None:
    """The documented type and schema are the current ones, and the schema is where the document says."""
    schema = f"schemas/run-state-{SCHEMA_VERSION}.json"

    (path,) = {code for code in codes(EVENTS) if code.endswith(schema)}

    assert (REPOSITORY / path).is_file()
    assert EVENT_TYPE == json.loads(BODY)["type"]


def test_version_0() -> None:
    """A bare run with the documented fields of version 0, and no others, is decoded."""
    said = (
        one_line(section(EVENTS, "## Schema versions")).split("Version 0 is a bare run: `")[1].split("`")[0]
    )
    run = json.loads(BODY)["run"]
    fields = json.loads(said.replace("...", '""'))

    body = {**{name: run.get(name) for name in fields}, "type": fields["type"]}
    event = decode_event(Message(data=json.dumps(body).encode(), attributes={}))

    assert "invoice-1" == event.run.id


def test_sizes() -> None:
    """The documented sizes are the code's: payloads, texts and the history."""
    sizes = one_line(section(EVENTS, "## Sizes"))

    assert f"together keep {MAX_PAYLOAD_BYTES:,} bytes" in sizes
    assert f"an error {MAX_TEXT_BYTES // 1_024} KiB" in sizes
    assert f"begins with `{CUT_MARKER}`" in sizes
    assert CUT_MARKER in fit_text("x" * (MAX_TEXT_BYTES + 1))
    assert f"the newest {MAX_HISTORY} kept" in one_line(section(EVENTS, "## Versions and merging"))
