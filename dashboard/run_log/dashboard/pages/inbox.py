"""The inbox: runs that wait for an answer, by deadline, each with the form that it is answered with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from run_log.core import InvalidArgumentError, InvalidCursorError
from run_log.dashboard.access import Caller
from run_log.dashboard.context import Asking, Live, Log, Now
from run_log.dashboard.paths import id_of, name_of
from run_log.stores import PendingRun, RunLog

from .filters import encoded
from .forms import Answering
from .live import live_path
from .rendering import page, root_of

FIELDS: Final = ("assignee", "overdue", "workflow")
"""The parameters that narrow the inbox."""

PAGE_SIZE: Final = 25

_OVERDUE: Final = {"": None, "yes": True, "no": False}

router: Final = APIRouter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A run that waits, as the inbox shows it."""

    pending: PendingRun
    name: str
    """Its workflow and its id, as segments of a path."""
    answering: Answering
    next: str
    """The `name` of the one that follows it; empty for none."""
    is_open: bool


@router.get("/inbox")
async def show_inbox(request: Request, log: Log, now: Now, asking: Asking, changes: Live) -> HTMLResponse:
    """Show the runs that wait for an answer, those that are due first."""
    given = {name: text for name in FIELDS if (text := request.query_params.get(name, "")).strip()}
    query = request.query_params
    live = live_path(root_of(request), "/live/page", "paused=1", await changes.cursor())
    faults: dict[str, str] = {}
    found: Sequence[PendingRun] = ()
    token = None
    if given.get("overdue", "") not in _OVERDUE:
        faults["overdue"] = "Pass yes, no, or nothing for both."
    else:
        try:
            found, token = await _due_first(log, given, query.get("page_token"), now)
        except InvalidCursorError:
            faults["page"] = "This page of the inbox is not there: its filters were changed."
    answered = (query.get("answered", ""), query.get("version", ""))
    # Where answers go through a topic, the list may still have the one that was just given.
    left = [each for each in found if (name_of(each.run), each.version.text) != answered]
    return page(
        request,
        "inbox.html",
        status=400 if faults else 200,
        items=_items(left, query.get("open"), asking, query.get("by", "")),
        now=now,
        live=live,
        fresh=0 if faults else 1,
        given=given,
        kept=encoded(given.items()),
        faults=faults,
        answered=_told(answered[0]),
        answered_as="rejected" if query.get("as") == "rejected" else "answered",
        may_answer=asking.may_answer,
        next=token and f"{root_of(request)}/inbox?{encoded([*given.items(), ('page_token', token)])}",
        is_later="page_token" in query,
    )


async def _due_first(
    log: RunLog, given: Mapping[str, str], token: str | None, now: datetime
) -> tuple[list[PendingRun], str | None]:
    """Return a page of the inbox by deadline, and the token of the next: what is overdue comes first.

    The library's listing by deadline is of one or the other.
    """
    wanted = _OVERDUE[given.get("overdue", "")]
    part, _, cursor = (token or "").partition(".")
    if part not in {"", "due", "rest"}:
        raise InvalidCursorError(f"{token!r:.100} is no page of the inbox")
    found: list[PendingRun] = []
    for name, overdue in (("due", True), ("rest", False)):
        if wanted not in (None, overdue) or (part == "rest" and overdue) or len(found) >= PAGE_SIZE:
            continue
        more, following = await log.list_pending(
            assignee=given.get("assignee"),
            overdue=overdue,
            workflow_id=given.get("workflow"),
            limit=PAGE_SIZE - len(found),
            start_after=cursor or None if part == name else None,
            now=now,
        )
        found += more
        if following is not None:
            return found, f"{name}.{following}"
        if overdue and wanted is None and len(found) >= PAGE_SIZE:
            return found, "rest."
    return found, None


def _items(found: Sequence[PendingRun], chosen: str | None, asking: Caller, name: str) -> list[Item]:
    names = [name_of(each.run) for each in found]
    opened = chosen if chosen in names else next(iter(names), None)
    return [
        Item(
            pending=each,
            name=own,
            answering=Answering.asked(each.run, each.version.text, asking.name, name=name),
            next=following,
            is_open=own == opened,
        )
        for each, own, following in zip(found, names, [*names[1:], ""], strict=False)
    ]


def _told(name: str) -> tuple[str, str] | None:
    """Return the ids that *name* stands for; None where it names nothing."""
    try:
        workflow, run = map(id_of, name.split("/"))
    except (InvalidArgumentError, ValueError):
        return None
    return workflow, run
