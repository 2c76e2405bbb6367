"""Answers to paused runs, from the forms of the inbox and of a run's page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from run_log.core import AlreadyAnsweredError, InvalidArgumentError, NotPausedError, RunNotFoundError
from run_log.dashboard.access import Caller
from run_log.dashboard.context import Asking, Log, Now, ensure_durable
from run_log.dashboard.paths import id_of, name_of
from run_log.stores import RunLog, RunRecord

from .filters import encoded
from .forms import Answering, values_of
from .inbox import FIELDS
from .rendering import root_of
from .run import Looking, Notice, run_page

router: Final = APIRouter()

_REJECT: Final = "reject"


@router.post("/workflows/{workflow}/runs/{run}/answer")
async def answer(request: Request, log: Log, now: Now, asking: Asking, workflow: str, run: str) -> Response:
    """Answer a paused run, and go on to the next one of the inbox.

    Who may not is refused before a request gets here, as one that no page of ours sends.
    """
    given = {name: text for name, text in (await request.form()).multi_items() if isinstance(text, str)}
    record = await log.get_record(id_of(workflow), id_of(run), payloads=False)
    if record is None:
        raise RunNotFoundError(id_of(workflow), id_of(run))
    asked = Answering.asked(record.run, given.get("version") or record.version.text, asking.name)
    form = asked.checked(given, is_rejection=given.get("action") == _REJECT)
    looking = Looking(now=now, asking=asking, answering=form, status=400)
    if record.version.text == form.version and not form.is_right:
        return await run_page(request, log, record, looking)
    try:
        await _answered(log, record, form, given, asking)
    except NotPausedError as error:
        return await _too_late(request, log, record, looking, error)
    except InvalidArgumentError as error:
        form = replace(form, faults=[str(error)])
        return await run_page(request, log, record, replace(looking, answering=form))
    return RedirectResponse(_next(request, record, form, given), status_code=303)


async def _answered(
    log: RunLog, record: RunRecord, form: Answering, given: Mapping[str, str], asking: Caller
) -> None:
    by, comment = asking.name or form.name, form.comment or None
    if given.get("action") == _REJECT:
        await log.reject(*record.run.key, answered_by=by, comment=comment, if_version=form.version)
    else:
        await log.resume(
            *record.run.key,
            answered_by=by,
            comment=comment,
            choice=given.get("choice"),
            # Of another pause than is asked about by now, the answer is refused whatever it is.
            values=values_of(form.fields) if form.pause.form and form.is_right else None,
            if_version=form.version,
        )
    await ensure_durable(log, *record.run.key)


async def _too_late(
    request: Request, log: RunLog, record: RunRecord, looking: Looking, error: NotPausedError
) -> Response:
    """Show the run as it is by now, who has answered, and what was typed: it can be copied."""
    newest = await log.get_record(*record.run.key, payloads=False) or record
    if isinstance(error, AlreadyAnsweredError) and error.answered_by:
        title = f"Already answered by {error.answered_by}"
    else:
        title = f"The run is {newest.run.status.value} by now"
    comment = looking.answering.comment if looking.answering else ""
    text = "Your answer was not recorded." + (f" Your comment was: {comment}" if comment else "")
    notice = Notice(title=title, text=text)
    return await run_page(request, log, newest, replace(looking, notice=notice, answering=None, status=409))


def _next(request: Request, record: RunRecord, form: Answering, given: Mapping[str, str]) -> str:
    """Return where the next one of the inbox is, in the very list that this one was answered from."""
    kept = [pair for pair in parse_qsl(given.get("inbox", "")) if pair[0] in FIELDS]
    following = given.get("next", "")
    told = [
        ("answered", name_of(record.run)),
        ("version", form.version),
        ("as", "rejected" if given.get("action") == _REJECT else "answered"),
        *([("open", following)] if following else []),
        *([("by", form.name)] if form.name else []),
    ]
    return f"{root_of(request)}/inbox?{encoded([*kept, *told])}{f'#run/{following}' if following else ''}"
