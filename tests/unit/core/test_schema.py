from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from tests.golden.schema import PINNED, SCHEMAS, schema_of_the_model

from run_log.core import EventDecodeError, PauseRequest, RunProgress, RunRef, decode_event, encode_event
from run_log.core.schema import event_schema_text
from run_log.core.steps import Step, StepStatus
from run_log.core.wire import SCHEMA_VERSION

from .builders import NOON, make_event, message

SCHEMA: dict[str, Any] = json.loads(event_schema_text())
OBJECTS: dict[str, dict[str, Any]] = {
    "event": SCHEMA,
    **{name: SCHEMA["$defs"][name] for name in ("WorkflowRun", "PauseRequest", "RunProgress", "Step")},
}
FIELDS = [(name, field) for name, described in OBJECTS.items() for field in described["properties"]]


def _body() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return a body, and the objects in it by the name under which the schema describes them."""
    pause = PauseRequest(
        reason="why",
        deadline=NOON,
        comment="no",
        choices=("a", "b"),
        form={"type": "object"},
        default_choice="a",
        choice="b",
        values={"c": 1},
    )
    added: dict[str, Any] = {
        "labels": {"team": "a"},
        "parent": RunRef("w", "p"),
        "trace_id": "ab" * 16,
        "error_type": "E",
    }
    added["progress"] = RunProgress(fraction=0.4, text="2 of 5")
    event = make_event(pause=pause, completed_at=NOON, error="e", **added)
    step = Step(key="k", name="download", status=StepStatus.RUNNING, started_at=NOON, version=7)
    event = event.model_copy(update={"is_progress": True, "steps": (step,)})
    body: dict[str, Any] = json.loads(encode_event(event).data)
    run = body["run"]
    parts = {"WorkflowRun": run, "PauseRequest": run["pause"], "RunProgress": run["progress"]}
    return body, {"event": body, **parts, "Step": body["steps"][0]}


def test_the_committed_schema_is_current() -> None:
    """The committed file of this version is what the model has now, and what is shown."""
    committed = (SCHEMAS / f"run-state-{SCHEMA_VERSION}.json").read_text(encoding="utf-8")

    assert event_schema_text() == committed
    assert schema_of_the_model() == committed, (
        "the event's schema changed: give it a new SCHEMA_VERSION, and run `make schema`"
    )


def test_committed_schemas_never_change() -> None:
    """Each committed schema is the one that was pinned when it was published, and none is missing."""
    pinned: dict[str, str] = json.loads(PINNED.read_text(encoding="utf-8"))
    committed = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in SCHEMAS.glob("*.json")}

    assert pinned == committed, "schemas are append-only: `make schema` writes and pins a new one"


@pytest.mark.parametrize("name", OBJECTS)
def test_the_schema_names_exactly_the_fields_of_the_body(name: str) -> None:
    """What the encoder writes are the fields of the schema, in the same order; newer writers may add some."""
    assert list(_body()[1][name]) == list(OBJECTS[name]["properties"])
    assert "additionalProperties" not in OBJECTS[name]


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_what_is_required_is_what_the_decoder_needs(name: str, field: str) -> None:
    """A body without a required field is refused; without any other it is an event."""
    body, parts = _body()
    del parts[name][field]
    if name == "Step":
        # A run is worth more than a step that cannot be read.
        read = decode_event(message(body)).steps
        assert (field in OBJECTS[name]["required"]) == (read == ())
    elif field in OBJECTS[name].get("required", []):
        with pytest.raises(EventDecodeError):
            decode_event(message(body))
    else:
        assert decode_event(message(body)).event_id == "e001"


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_null_says_as_much_as_absence(name: str, field: str) -> None:
    """A field that is null is read as one that is absent, whether that is refused or has a default."""
    body, parts = _body()
    parts[name][field] = None
    null = message(body)
    del parts[name][field]
    absent = message(body)
    if name != "Step" and field in OBJECTS[name].get("required", []):
        for refused in (null, absent):
            with pytest.raises(EventDecodeError):
                decode_event(refused)
    else:
        assert decode_event(absent) == decode_event(null)


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_field_is_described(name: str, field: str) -> None:
    """Each field of the schema says what it means, for readers who have no Python."""
    description = OBJECTS[name]["properties"][field]["description"]

    assert description
    assert not set("`*\n") & set(description)


def test_the_schema_begins_with_the_type() -> None:
    """The schema has this version's identity, and its first required field is the type."""
    assert f"urn:run-log:schema:run-state:{SCHEMA_VERSION}" == SCHEMA["$id"]
    assert SCHEMA["required"] == ["type", "event_id", "hlc", "occurred_at", "run"]
