"""The JSON Schema of an event: the file that is shipped, and how it is made from the model."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, Final, cast

from .events import RunEvent
from .wire import EVENT_TYPE, NO_DEFAULT_ON_THE_WIRE, SCHEMA_VERSION

_BESIDE_THE_BODY: Final = frozenset({"traceparent", "tracestate"})


def event_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an event's body in this version.

    It requires the fields that a reader needs, and allows the fields that a newer writer adds.
    """
    return cast("dict[str, Any]", json.loads(event_schema_text()))


def event_schema_text() -> str:
    """Return the text of `event_schema` that is shipped."""
    # Not made here: its descriptions are docstrings, which `python -OO` removes.
    name = f"run-state-{SCHEMA_VERSION}.json"
    return (files("run_log.core") / "schemas" / name).read_text(encoding="utf-8")


def make_event_schema_text() -> str:
    """Return the text of the schema that the model has now."""
    return json.dumps(_made(), indent=2) + "\n"


def _made() -> dict[str, Any]:
    schema = RunEvent.model_json_schema(mode="validation")
    definitions = {name: _plain(definition) for name, definition in schema["$defs"].items()}
    event = _plain(schema)
    properties = {
        "type": {"type": "string", "const": EVENT_TYPE, "description": "Which event, and its major version."},
        **{name: value for name, value in event["properties"].items() if name not in _BESIDE_THE_BODY},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:run-log:schema:run-state:{SCHEMA_VERSION}",
        "title": event["title"],
        "description": event["description"],
        "type": "object",
        "properties": properties,
        "required": ["type", *NO_DEFAULT_ON_THE_WIRE, *event["required"]],
        "$defs": definitions,
    }


def _plain(definition: dict[str, Any]) -> dict[str, Any]:
    """Return a model's schema without the details that only matter in Python."""
    plain = dict(definition)
    plain["description"] = _first_paragraph(definition["description"])
    if "properties" in definition:
        fields = cast("dict[str, dict[str, Any]]", definition["properties"])
        plain["properties"] = {name: _field(field) for name, field in fields.items()}
    return plain


def _field(field: dict[str, Any]) -> dict[str, Any]:
    # The title that pydantic makes only repeats the name.
    return {
        name: _first_paragraph(value) if name == "description" else value
        for name, value in field.items()
        if name != "title"
    }


def _first_paragraph(docstring: str) -> str:
    """Return the first paragraph of a docstring as one line, with JSON's name for None."""
    paragraph = docstring.partition("\n\n")[0]
    return " ".join(paragraph.split()).replace("`", "").replace("None", "null")
