"""What requests of the API say in their paths and queries."""

from __future__ import annotations

from typing import Annotated, Any, Final, NamedTuple

from fastapi import Depends, Path, Query

from run_log.core import InvalidArgumentError
from run_log.core.protocol import MAX_LIMIT
from run_log.dashboard.paths import ALL_WORKFLOWS, id_of

DEFAULT_PAGE_SIZE: Final = 50

_WORKFLOW: Final = (
    "The workflow's id; in it, `~` and two hex digits stand for a byte that a path cannot have."
)
_ANY_WORKFLOW: Final = f"{_WORKFLOW} `{ALL_WORKFLOWS}` is all workflows."
_RUN: Final = "The run's id, escaped as the workflow's."


# It is told, and not checked here: the library's own errors say more.
_SEGMENT: Final[dict[str, Any]] = {"pattern": "^([^~]|~[0-9A-F]{2})+$"}
DURATION: Final[dict[str, Any]] = {"pattern": "^[0-9]{1,6}[smhd]$"}


class Page(NamedTuple):
    """Which page of a listing is asked for."""

    limit: int
    start_after: str | None


async def _page(
    page_size: Annotated[
        int,
        Query(ge=0, description=f"The most items; 0 is {DEFAULT_PAGE_SIZE}, and more than {MAX_LIMIT} that."),
    ] = DEFAULT_PAGE_SIZE,
    page_token: Annotated[
        str, Query(description="The `next_page_token` of the page before; empty for the first page.")
    ] = "",
) -> Page:
    return Page(min(page_size, MAX_LIMIT) or DEFAULT_PAGE_SIZE, page_token or None)


async def _any_workflow(
    workflow: Annotated[str, Path(description=_ANY_WORKFLOW, json_schema_extra=_SEGMENT)],
) -> str | None:
    return None if workflow == ALL_WORKFLOWS else id_of(workflow)


async def _workflow(workflow: Annotated[str, Path(description=_WORKFLOW, json_schema_extra=_SEGMENT)]) -> str:
    if workflow == ALL_WORKFLOWS:
        raise InvalidArgumentError(
            "this is of one workflow, and - is all; the workflow with that name is ~2D in a path"
        )
    return id_of(workflow)


async def _run(run: Annotated[str, Path(description=_RUN, json_schema_extra=_SEGMENT)]) -> str:
    return id_of(run)


Paging = Annotated[Page, Depends(_page)]
AnyWorkflow = Annotated[str | None, Depends(_any_workflow)]
WorkflowId = Annotated[str, Depends(_workflow)]
RunId = Annotated[str, Depends(_run)]
OnlyWorkflow = Annotated[
    str | None, Query(min_length=1, description="Only runs of the workflow with this id, as it is.")
]
