"""The page of those who run this: how far workflows are, what has gone silent, and what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from run_log.core import DeadLetterReason, InvalidArgumentError, InvalidCursorError, RunLogError, words
from run_log.core.logs import get_logger
from run_log.dashboard.context import Live, Log, Now
from run_log.stores import Notices, RunLog, WorkflowStats
from run_log.stores.notices import MAX_DEAD_LETTERS, DeadLetterNotice

from .filters import Filter, encoded
from .live import live_path
from .rendering import page, root_of
from .rows import Row

OLDER_THAN: Final = "1h"
"""How long a run has to be silent to be shown, unless told otherwise."""

_WORKFLOWS: Final = 100
_STALE: Final = 50

_logger: Final = get_logger("run_log.dashboard")

router: Final = APIRouter()


@dataclass(frozen=True, slots=True, kw_only=True)
class LettersOfReason:
    """The dead letters of one reason."""

    reason: str
    count: int
    newest: DeadLetterNotice

    @property
    def command(self) -> str:
        """What sends them again; empty for a reason that is none of ours."""
        # Whoever writes to the store says the reason, and somebody is to run this.
        is_ours = self.reason in set(DeadLetterReason)
        return f"run-log dead-letters redrive --reason {self.reason}" if is_ours else ""


def by_reason(letters: Sequence[DeadLetterNotice]) -> list[LettersOfReason]:
    """Return *letters*, which come newest first, by reason: the reason of the newest first."""
    groups: dict[str, list[DeadLetterNotice]] = {}
    for letter in letters:
        groups.setdefault(letter.reason, []).append(letter)
    return [
        LettersOfReason(reason=reason, count=len(group), newest=group[0]) for reason, group in groups.items()
    ]


@router.get("/operations")
async def show_operations(request: Request, log: Log, now: Now, changes: Live) -> HTMLResponse:
    """Show what is silent, what could not be projected, how far workflows are, and what a recount found."""
    root, fault = root_of(request), ""
    older_than = request.query_params.get("older_than", "").strip() or OLDER_THAN
    token = request.query_params.get("page_token") or None
    live = live_path(root, "/live/page", "", await changes.cursor())
    try:
        silence = words.duration(older_than)
    except InvalidArgumentError as error:
        silence, fault = words.duration(OLDER_THAN), str(error)
    (workflows, following), (stale, more_stale), notices = await asyncio.gather(
        _workflows(log, token), log.list_stale(silence, limit=_STALE, now=now), _notices(log)
    )
    if workflows is None:
        fault = "This page of the workflows is not there. Begin with the first."
    letters = notices.dead_letters if notices else ()
    every = Filter.of((), now)
    return page(
        request,
        "operations.html",
        status=400 if fault else 200,
        live=live,
        fresh=0 if fault else 10,
        workflows=workflows or [],
        stale=[(each, Row(each.run, every, root=root, now=now)) for each in stale],
        has_more_stale=more_stale is not None,
        are_noticed=notices is not None,
        letters=by_reason(letters),
        most_letters=MAX_DEAD_LETTERS if len(letters) == MAX_DEAD_LETTERS else None,
        is_projected=notices is None or notices.is_projected,
        verified=notices and notices.verified,
        older_than=older_than,
        fault=fault,
        now=now,
        is_later=token is not None,
        next=following and f"{root}/operations?{encoded([('page_token', following)])}",
        place=log.place,
    )


async def _notices(log: RunLog) -> Notices | None:
    """Return the notices; None where they cannot be read, by an account that may not, for example."""
    try:
        return await log.get_notices()
    except RunLogError as error:
        _logger.warning("run_log_notices_not_read", error=str(error))
        return None


async def _workflows(log: RunLog, token: str | None) -> tuple[list[WorkflowStats] | None, str | None]:
    """Return a page of the workflows and the next one's cursor; None where *token* leads to no page."""
    try:
        return await log.list_workflows(limit=_WORKFLOWS, start_after=token)
    except InvalidCursorError:
        return None, None
