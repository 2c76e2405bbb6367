"""The OpenAPI document: what FastAPI cannot tell of the routes by itself."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from pydantic import TypeAdapter

from run_log.dashboard.errors import PROBLEM_TYPE

from .shapes import SHAPES

_REFERENCES: Final = "#/components/schemas/{model}"
_PROBLEM: Final = {"$ref": _REFERENCES.format(model="Problem")}

_MEANINGS: Final = {
    400: "A parameter, the filter, the page token or the body cannot be used.",
    403: "The dashboard is read-only, or the request comes from a page of another site.",
    404: "There is no such run.",
    409: "The run does not wait for an answer, or no longer.",
    412: "`If-Match` is not the run's newest state any more.",
    413: "The body is too large.",
    503: "The store does not answer; `Retry-After` says when to ask again.",
}

_TAG: Final = {"ETag": {"description": "Of what is shown.", "schema": {"type": "string"}}}

# Of OpenAPI 3.2, as FastAPI has it in documents of 3.1, too.
_EVENT: Final = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "The cursor that goes on after this."},
        "event": {"const": "end", "description": "Of the last event, whose data is empty."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [{"$ref": "#/components/schemas/Change"}, {"type": "object", "maxProperties": 0}]
            },
        },
        "retry": {"type": "integer"},
    },
}

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """Return what OpenAPI says of an operation that fails with *statuses*, and as all do with 400 and 503."""
    found: Responses = {status: _problem(_MEANINGS[status]) for status in sorted({400, 503, *statuses})}
    return {**found, "default": _problem("Anything else that goes wrong.")}


def returns(shape: type, *statuses: int) -> Responses:
    """Return `problems`, and that the answer is JSON of a *shape*, which is one of `SHAPES`.

    Not FastAPI's `response_model`: each app would make the models of all of them at its first request.
    """
    reference = {"$ref": _REFERENCES.format(model=shape.__name__)}
    found = {"description": "What was asked for.", "content": {"application/json": {"schema": reference}}}
    return {200: found, **problems(*statuses)}


def tagged(shape: type, *statuses: int) -> Responses:
    """Return the same, and that the answer has an entity tag."""
    found = returns(shape, *statuses)
    found[200]["headers"] = _TAG
    return {304: {"description": "The client has it: `If-None-Match` names it.", "headers": _TAG}, **found}


def describe(app: FastAPI) -> None:
    """Have the document of *app* say what is beside the answers of its routes: problems, and changes."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        document = generated()
        for shape in SHAPES:
            schema = TypeAdapter(shape).json_schema(mode="serialization", ref_template=_REFERENCES)
            document["components"]["schemas"] |= {**schema.pop("$defs", {}), shape.__name__: schema}
        for path, methods in document["paths"].items():
            if path.endswith(":watch"):
                methods["get"]["responses"]["200"]["content"] = {"text/event-stream": {"itemSchema": _EVENT}}
        return document

    # As FastAPI's documentation extends it.
    app.openapi = openapi  # type: ignore[method-assign]


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {PROBLEM_TYPE: {"schema": _PROBLEM}}}
