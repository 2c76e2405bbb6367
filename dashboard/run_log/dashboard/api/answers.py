"""The path that answers a paused run."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from run_log.core import (
    AlreadyAnsweredError,
    InvalidArgumentError,
    RunNotFoundError,
    RunStatus,
    Version,
)
from run_log.dashboard.access import Caller
from run_log.dashboard.bodies import JSONAnswer
from run_log.dashboard.context import Asking, Log, ensure_durable
from run_log.dashboard.errors import ChangedSinceError
from run_log.stores import RunLog

from . import shapes
from .document import returns
from .parameters import RunId, WorkflowId
from .tags import versions_of

router: Final = APIRouter(default_response_class=JSONAnswer)


class Answer(BaseModel):
    """What a paused run is answered with."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    action: Literal["resume", "reject"]
    """Whether the run goes on, or ends here as failed."""
    answered_by: str | None = None
    """Who answers: needed where nobody is signed in, and else who is."""
    comment: str | None = None
    """What they have to say."""
    choice: str | None = None
    """Which of the pause's choices; needed for `resume` where it has any."""
    values: dict[str, Any] | None = None
    """What is filled in, by the pause's form; needed for `resume` where it has one."""


@router.post(
    "/workflows/{workflow}/runs/{run}/answer",
    tags=["runs"],
    responses=returns(shapes.Run, 403, 404, 409, 412, 413),
)
async def answer_run(
    log: Log,
    asking: Asking,
    workflow: WorkflowId,
    run: RunId,
    answer: Answer,
    if_match: Annotated[
        str | None,
        Header(description="The pause that is answered: the `ETag` of its run, or `version` in the inbox."),
    ] = None,
) -> Response:
    """Answer a paused run, so that it goes on or ends as failed, and show it.

    With `If-Match`, of any number of answers to the same pause one alone succeeds, and the others get 409
    with who answered. 412 is for a state that is not the newest, and that nobody has answered. Without,
    whatever the run waits for is answered, by one alone too; 409 is for a run that does not wait, or no
    longer.
    """
    call = log.resume if answer.action == "resume" else log.reject
    named = versions_of(if_match)
    try:
        found = await call(
            workflow,
            run,
            answered_by=_who(asking, answer),
            comment=answer.comment,
            choice=answer.choice,
            values=answer.values,
            if_version=await _pause(log, workflow, run, named),
        )
    except AlreadyAnsweredError as error:
        if named is None or error.answered_by is not None:
            raise
        raise ChangedSinceError(str(error)) from error
    await ensure_durable(log, workflow, run)
    return JSONAnswer(found.to_json())


def _who(asking: Caller, answer: Answer) -> str:
    if asking.name is None:
        if answer.answered_by is None:
            raise InvalidArgumentError("answered_by is missing; nobody is signed in, so say who answers")
        return answer.answered_by
    if answer.answered_by not in (None, asking.name):
        raise InvalidArgumentError(
            f"answered_by is {answer.answered_by!r:.200}, but {asking.name!r} is signed in; leave it out"
        )
    return asking.name


async def _pause(log: RunLog, workflow: str, run: str, versions: list[Version] | None) -> Version | None:
    """Return the version of the pause that is answered: of *versions*, or where these are None, any.

    None is for a run that does not wait.
    """
    if versions is not None and len(versions) == 1:
        return versions[0]
    record = await log.get_record(workflow, run, payloads=False)
    if record is None:
        raise RunNotFoundError(workflow, run)
    if versions is None:
        # Named all the same: of several at once, one alone succeeds.
        return record.version if record.run.status is RunStatus.PAUSED else None
    if record.version not in versions:
        raise ChangedSinceError(f"If-Match does not name the state that run {run!r} is in")
    return record.version
