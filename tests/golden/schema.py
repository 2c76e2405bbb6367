"""Write the event's JSON Schema of this version, and pin it: ``make schema``.

Schemas are append-only: a pinned one never changes, a changed event model needs a new ``SCHEMA_VERSION``.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import run_log.core
from run_log.core import RunEvent
from run_log.core.wire import EVENT_TYPE, NO_DEFAULT_ON_THE_WIRE, SCHEMA_VERSION

SCHEMAS = Path(run_log.core.__path__[0]) / "schemas"
PINNED = Path(__file__).with_name("schemas.json")


def schema_of_the_model() -> str:
    """Return the text of the schema that the model has now."""
    schema = RunEvent.model_json_schema(mode="validation")
    event = _plain(schema)
    kind = {"type": "string", "const": EVENT_TYPE, "description": "Which event, and its major version."}
    beside_the_body = {"traceparent", "tracestate"}
    fields = {name: value for name, value in event["properties"].items() if name not in beside_the_body}
    made = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:run-log:schema:run-state:{SCHEMA_VERSION}",
        "title": event["title"],
        "description": event["description"],
        "type": "object",
        "properties": {"type": kind, **fields},
        "required": ["type", *NO_DEFAULT_ON_THE_WIRE, *event["required"]],
        "$defs": {name: _plain(definition) for name, definition in schema["$defs"].items()},
    }
    return json.dumps(made, indent=2) + "\n"


def _plain(definition: dict[str, Any]) -> dict[str, Any]:
    """Return a model's schema without the details that only matter in Python."""
    model: type = getattr(run_log.core, definition["title"])
    # Not every version of pydantic that is allowed describes a dataclass.
    docstring = definition.get("description") or inspect.getdoc(model)
    plain = {"description": "", **definition} | {"description": _first_paragraph(docstring or "")}
    if "properties" in definition:
        fields = cast("dict[str, dict[str, Any]]", definition["properties"])
        docstrings = _docstrings_of_fields(model)
        plain["properties"] = {name: _field(field, docstrings[name]) for name, field in fields.items()}
    return plain


def _field(field: dict[str, Any], docstring: str) -> dict[str, Any]:
    # The title that pydantic makes only repeats the name.
    described = {**field, "description": _first_paragraph(docstring)}
    return {name: described[name] for name in sorted(described) if name != "title"}


def _docstrings_of_fields(model: type) -> dict[str, str]:
    [written] = ast.parse(inspect.getsource(model)).body
    assert isinstance(written, ast.ClassDef)
    return {
        field.target.id: text.value.value
        for field, text in pairwise(written.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(text.value.value, str)
    }


def _first_paragraph(docstring: str) -> str:
    """Return the first paragraph of a docstring as one line, with JSON's name for None."""
    paragraph = docstring.partition("\n\n")[0]
    return " ".join(paragraph.split()).replace("`", "").replace("None", "null")


def main() -> int:
    """Write and pin the schema; return 1 where that would change a pinned one."""
    path = SCHEMAS / f"run-state-{SCHEMA_VERSION}.json"
    text = schema_of_the_model()
    digest = hashlib.sha256(text.encode()).hexdigest()
    pinned: dict[str, str] = json.loads(PINNED.read_text())
    if pinned.get(path.name, digest) != digest:
        sys.stderr.write(f"{path.name} is pinned and would change: raise SCHEMA_VERSION\n")
        return 1
    path.write_text(text)
    PINNED.write_text(json.dumps({**pinned, path.name: digest}, indent=2, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
