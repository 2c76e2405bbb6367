"""The event's JSON Schema, made from the model."""

from __future__ import annotations

import json
from typing import Any

from ._events import RunEvent
from ._wire import EVENT_TYPE, SCHEMA_VERSION


def event_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an event's body in this version."""
    schema = RunEvent.model_json_schema(mode="serialization")
    properties = {"type": {"const": EVENT_TYPE, "description": "Which event, and its major version."}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:run-log:schema:run-state:{SCHEMA_VERSION}",
        **schema,
        "properties": {**properties, **schema["properties"]},
        "required": ["type", *schema["required"]],
    }


def event_schema_text() -> str:
    """Return `event_schema` as the text that is committed."""
    return json.dumps(event_schema(), indent=2, sort_keys=True) + "\n"
