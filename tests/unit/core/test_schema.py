from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import run_log.core
from run_log.core import EventDecodeError, PauseRequest, decode_event, encode_event
from run_log.core.schema import event_schema, event_schema_text, make_event_schema_text
from run_log.core.wire import SCHEMA_VERSION

from .builders import NOON, make_event, message

COMMITTED = Path(run_log.core.__path__[0]) / "schemas"
PINNED = Path(__file__).parents[2] / "golden" / "schemas.json"

SCHEMA: dict[str, Any] = event_schema()


def _object(name: str) -> dict[str, Any]:
    definitions: dict[str, dict[str, Any]] = SCHEMA["$defs"]
    return SCHEMA if name == "event" else definitions[name]


def _body() -> dict[str, Any]:
    pause = PauseRequest(reason="why", deadline=NOON, comment="no")
    event = make_event(pause=pause, completed_at=NOON, error="e")
    body: dict[str, Any] = json.loads(encode_event(event).data)
    return body


def _part(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the object in *body* that the schema's object *name* describes."""
    parts: dict[str, dict[str, Any]] = {
        "event": body,
        "WorkflowRun": body["run"],
        "PauseRequest": body["run"]["pause"],
    }
    return parts[name]


OBJECTS = ["event", "WorkflowRun", "PauseRequest"]
FIELDS = [(name, field) for name in OBJECTS for field in _object(name)["properties"]]


def test_the_committed_schema_is_current() -> None:
    """The committed file of this version is what the code makes."""
    committed = (COMMITTED / f"run-state-{SCHEMA_VERSION}.json").read_text(encoding="utf-8")

    assert event_schema_text() == committed
    assert make_event_schema_text() == committed, (
        "the event's schema changed: give it a new SCHEMA_VERSION, and run `make schema`"
    )


def test_committed_schemas_never_change() -> None:
    """Each committed schema is the one that was pinned when it was published, and none is missing."""
    pinned: dict[str, str] = json.loads(PINNED.read_text(encoding="utf-8"))
    committed = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(COMMITTED.glob("*.json"))
    }

    assert pinned == committed, (
        "published schemas are append-only: a changed schema needs a new SCHEMA_VERSION and a new file, "
        f"whose SHA-256 is then added to {PINNED.name}"
    )


@pytest.mark.parametrize("name", OBJECTS)
def test_the_schema_names_exactly_the_fields_of_the_body(name: str) -> None:
    """What the encoder writes and what the schema describes are the same fields, in the same order."""
    assert list(_part(_body(), name)) == list(_object(name)["properties"])


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_what_is_required_is_what_the_decoder_needs(name: str, field: str) -> None:
    """A body without a required field is refused; without any other it is an event."""
    body = _body()
    del _part(body, name)[field]
    if field in _object(name).get("required", []):
        with pytest.raises(EventDecodeError):
            decode_event(message(body))
    else:
        assert decode_event(message(body)).event_id == "e001"


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_field_is_described(name: str, field: str) -> None:
    """Each field of the schema says what it means, for readers who have no Python."""
    description = _object(name)["properties"][field]["description"]

    assert description
    assert not set("`*\n") & set(description)


@pytest.mark.parametrize("name", OBJECTS)
def test_newer_writers_may_add_fields(name: str) -> None:
    """No object of the schema forbids further fields."""
    assert "additionalProperties" not in _object(name)


def test_the_schema_begins_with_the_type() -> None:
    """The schema has this version's identity, and its first required field is the type."""
    assert f"urn:run-log:schema:run-state:{SCHEMA_VERSION}" == SCHEMA["$id"]
    assert SCHEMA["required"] == ["type", "event_id", "hlc", "occurred_at", "run"]
