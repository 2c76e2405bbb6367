"""The OpenAPI document, and whether the API is what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, cast

import jsonschema  # type: ignore[import-untyped]  # published without annotations
import pytest

from run_log.core import PauseRequest, RunEvent, RunProgress, RunRef, RunStatus, Step, StepStatus
from run_log.testing import a_run

from .api import NOON, Api
from .streaming import streaming

PATHS = {
    "/api/v1/workflows": {"get"},
    "/api/v1/workflows/{workflow}/summary": {"get"},
    "/api/v1/workflows/{workflow}/failures": {"get"},
    "/api/v1/workflows/{workflow}/runs": {"get"},
    "/api/v1/workflows/{workflow}/runs/{run}": {"get"},
    "/api/v1/workflows/{workflow}/runs/{run}/history": {"get"},
    "/api/v1/workflows/{workflow}/runs/{run}/steps": {"get"},
    "/api/v1/workflows/{workflow}/runs/{run}/answer": {"post"},
    "/api/v1/pending": {"get"},
    "/api/v1/stale": {"get"},
    "/api/v1/runs:watch": {"get"},
}
RUNS = [
    a_run(
        id="r",
        workflow_id="w",
        status=RunStatus.FAILED,
        started_at=NOON,
        error="no",
        error_type="ValueError",
        parent=RunRef("w", "p"),
        trace_id="ab" * 16,
        labels={"a": "b"},
    ),
    a_run(
        id="p",
        workflow_id="w",
        status=RunStatus.PAUSED,
        started_at=NOON,
        pause=PauseRequest(reason="Pay?", form={"type": "object"}, choices=("a",), deadline=NOON),
    ),
    a_run(id="s", workflow_id="w", status=RunStatus.RUNNING, started_at=NOON - timedelta(hours=2)),
    a_run(id="d", workflow_id="w", status=RunStatus.SUCCESS, started_at=NOON),
]
STEPS = (
    Step(key="a", name="a", status=StepStatus.FAILED, started_at=NOON, ended_at=NOON, error="no", version=1),
    Step(key="b", parent="a", name="b", status=StepStatus.RUNNING, started_at=NOON, version=2),
)


async def document(api: Api) -> dict[str, Any]:
    """Return the document."""
    return cast("dict[str, Any]", await api.json("/openapi.json"))


def operations(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each operation, and what it is called."""
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def closed(schema: Any) -> Any:
    """Return *schema* such that an object may have no more than it says."""
    if isinstance(schema, list):
        return [closed(each) for each in cast("list[Any]", schema)]  # type: ignore[redundant-cast]  # not for pyright
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(each) for name, each in cast("dict[str, Any]", schema).items()}
    return {**found, "additionalProperties": False} if "properties" in found else found


async def test_every_operation_is_described(api: Api) -> None:
    """Each path of the contract is there, and each operation has a name, a summary, and says how it fails."""
    found = await document(api)

    assert PATHS == {path: set(methods) for path, methods in found["paths"].items()}
    for name, operation in operations(found):
        assert {"operationId", "summary", "description", "tags", "responses"} <= operation.keys(), name
        assert {"200", "400", "503", "default"} <= operation["responses"].keys(), name
        assert "422" not in operation["responses"], name
        for status, response in operation["responses"].items():
            if status not in {"200", "304"}:
                assert ["application/problem+json"] == list(response["content"]), (name, status)
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (name, parameter["name"])
    for schema in found["components"]["schemas"].values():
        assert schema.get("description"), schema["title"]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/workflows", "/workflows"),
        ("/workflows/{workflow}/summary", "/workflows/w/summary?window=7d"),
        ("/workflows/{workflow}/failures", "/workflows/-/failures"),
        ("/workflows/{workflow}/runs", "/workflows/-/runs?page_size=2"),
        ("/workflows/{workflow}/runs", "/workflows/-/runs?payloads=true"),
        ("/workflows/{workflow}/runs/{run}", "/workflows/w/runs/r"),
        ("/workflows/{workflow}/runs/{run}", "/workflows/w/runs/p"),
        ("/workflows/{workflow}/runs/{run}", "/workflows/w/runs/s"),
        ("/workflows/{workflow}/runs/{run}/history", "/workflows/w/runs/p/history"),
        ("/workflows/{workflow}/runs/{run}/steps", "/workflows/w/runs/s/steps"),
        ("/pending", "/pending"),
        ("/stale", "/stale?older_than=0s"),
    ],
)
async def test_an_answer_is_what_the_document_says(path: str, asked: str, api: Api) -> None:
    """What is answered has all that the document says of it, of those types, and nothing more."""
    for run in RUNS:
        await api.log.save_run(run)
    progress = RUNS[2].model_copy(update={"progress": RunProgress(fraction=0.5, text="half")})
    await api.log.apply([RunEvent(run=progress, is_progress=True, steps=STEPS)])
    found = await document(api)
    described = found["paths"][f"/api/v1{path}"]["get"]["responses"]["200"]["content"]

    body = await api.json(asked)

    assert any(body.values())
    check(body, described["application/json"]["schema"], found)


async def test_a_change_is_what_the_document_says(api: Api) -> None:
    """An event of a stream has the shape that the document calls a change; a problem has its own."""
    found = await document(api)
    async with streaming(api.app) as stream:
        await stream.next()
        await api.log.save_run(RUNS[0])
        check((await stream.event()).json, {"$ref": "#/components/schemas/Change"}, found)

    problem = (await api.get("/workflows/w/runs/r?")).json()
    check(problem, {"$ref": "#/components/schemas/Run"}, found)
    for path in ("/workflows/w/runs/nobody", "/workflows", "/nothing"):
        response = await api.get(path, {"page_size": "-1"})
        check(response.json(), {"$ref": "#/components/schemas/Problem"}, found)


def check(body: Any, schema: Any, found: Mapping[str, Any]) -> None:
    """See that *body* is what *schema*, of the document *found*, says, and no more."""
    whole = closed({**schema, "components": found["components"]})
    library: Any = jsonschema
    library.Draft202012Validator(whole, format_checker=library.FormatChecker()).validate(body)
