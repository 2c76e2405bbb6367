"""The streams that keep pages up to date: rows as HTML, counts, and that a page is another."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from run_log.core import PauseRequest, RunStatus
from run_log.dashboard import create_app
from run_log.dashboard.counts import EVERY_SECONDS, Counts
from run_log.dashboard.pages.filters import Filter
from run_log.dashboard.pages.live import LiveTabs
from run_log.stores import InMemoryRunLogService, RunLogService, WorkflowStats
from run_log.testing import a_run

from .asking import client_of
from .streaming import streaming

NOW = datetime(2026, 3, 4, tzinfo=UTC)


async def _live_path(app: Any, path: str) -> tuple[str, dict[str, str]]:
    async with client_of(app, host="localhost") as client:
        page = (await client.get(path)).text
    found = re.search(r'data-live="([^"]+)"', page)
    assert found is not None
    path, _, query = found[1].replace("&amp;", "&").partition("?")
    return path, dict(parse_qsl(query))


async def test_a_row_is_that_of_the_page(log: RunLogService) -> None:
    """What changes after a page was made comes as the very row that the page has."""
    app = create_app(log)
    await log.save_run(a_run(id="old"))
    live = await _live_path(app, "/?label=team%3Da%26b")
    run = a_run(id="<b>", labels={"team": "a&b"})

    await log.save_run(run)
    async with streaming(app, live[0], **live[1]) as stream:
        event = await stream.event()
        async with client_of(app, host="localhost") as client:
            page = (await client.get("/?label=team%3Da%26b")).text

    assert ("row", "run/workflow-1/~3Cb~3E") == (event.fields["event"], event.json["id"])
    assert event.json["html"].strip() in page
    assert "<b>" not in event.json["html"]


async def test_what_a_list_does_not_have_is_gone(log: RunLogService) -> None:
    """A run that does not match the filters is told to be gone, by its id alone."""
    app = create_app(log)
    await log.save_run(a_run(id="r1", status=RunStatus.RUNNING))
    live = await _live_path(app, "/?status=running")

    await log.save_run(a_run(id="r1"))
    async with streaming(app, live[0], **live[1]) as stream:
        event = await stream.event()

    assert ("gone", {"id": "run/workflow-1/r1"}) == (event.fields["event"], event.json)


async def test_a_filter_that_cannot_be_used(log: RunLogService) -> None:
    """A stream with a filter that means nothing is refused, as its page is."""
    async with client_of(create_app(log), host="localhost") as client:
        answer = await client.get("/live?since=yesterday")

    assert 400 == answer.status_code


async def test_a_page_is_told_of_its_own_changes(log: RunLogService) -> None:
    """The page of a run hears of that run alone, and the inbox of what waits or has waited."""
    app = create_app(log)
    pause = PauseRequest(reason="pay?")
    await log.save_run(a_run(id="r1", status=RunStatus.PAUSED, pause=pause))
    of_run = await _live_path(app, "/workflows/workflow-1/runs/r1")
    of_inbox = await _live_path(app, "/inbox")

    await log.save_run(a_run(id="other"))
    await log.resume("workflow-1", "r1", answered_by="mei")
    await log.save_run(a_run(id="third"))

    for live in (of_run, of_inbox):
        async with streaming(app, live[0], **live[1]) as stream:
            event = await stream.event()
            assert ("changed", {}) == (event.fields["event"], event.json)
        async with streaming(app, live[0], last_event_id=event.id, **live[1]) as stream:
            await log.save_run(a_run(id="r1", status=RunStatus.PAUSED, pause=pause, attempt=2))
            assert event.id != (await stream.event()).id


async def test_an_ended_run_needs_no_stream(log: RunLogService) -> None:
    """The page of a run that has ended opens no stream: nothing would come, and a server is billed for it."""
    await log.save_run(a_run(id="r1"))

    async with client_of(create_app(log), host="localhost") as client:
        page = (await client.get("/workflows/workflow-1/runs/r1")).text

    assert "data-live" not in page


async def test_counts_are_read_once_for_all() -> None:
    """However many ask for the counts, they are read once in some seconds, and then they are new."""
    log, clock = _Counted(), _Clock()
    await log.save_run(a_run(id="r1", started_at=NOW))
    counts = Counts(lambda: log, clock=clock)
    first = await counts.read()
    await log.save_run(a_run(id="r2", started_at=NOW + timedelta(hours=1)))
    again = await counts.read()
    clock.seconds += EVERY_SECONDS
    later = await counts.read()

    assert first.workflows is again.workflows
    assert ([1], [2]) == tuple([one.total for one in found.workflows] for found in (first, later))
    assert [True, False, True] == [found.are_new for found in (first, again, later)]
    assert (2, True) == (log.listings, first.are_all)


async def test_pages_and_streams_share_the_counts() -> None:
    """Ten loads of the list, and its streams, read the counts of all workflows once."""
    log = _Counted()
    await log.save_run(a_run(id="r1", started_at=NOW))
    app = create_app(log)

    async with client_of(app, host="localhost") as client:
        pages = [(await client.get("/")).text for _ in range(10)]

    assert 1 == log.listings
    assert [False, *[True] * 9] == ["counts=old" in page for page in pages]


async def test_old_counts_are_soon_told_anew() -> None:
    """The stream of a page whose counts were read before it tells those of now, although none changes."""
    log, clock = _Counted(), _Clock()
    counts = Counts(lambda: log, clock=clock)
    await counts.read()
    await log.save_run(a_run(id="r1", started_at=NOW))
    shown = Filter.of((), NOW)
    clock.seconds += 1
    old, new = (LiveTabs(counts, shown, "", are_old=are_old, clock=clock) for are_old in (True, False))
    at_once = [await old.beside(b""), await new.beside(b"")]
    clock.seconds += EVERY_SECONDS
    later = [await old.beside(b""), await new.beside(b"")]
    clock.seconds += EVERY_SECONDS
    again = await old.beside(b"")

    assert (b"<b>0</b>" in at_once[0], b"<b>1</b>" in later[0]) == (True, True)
    assert ([b"", b""], b"") == ([at_once[1], later[1]], again)


async def test_too_many_workflows_to_count() -> None:
    """Where not all workflows are listed, no numbers are told: they would be too small."""
    log, clock = _Counted(), _Clock()
    log.has_more = True
    tabs = LiveTabs(Counts(lambda: log, clock=clock), Filter.of((), NOW), "", are_old=True, clock=clock)

    assert (b"", 1) == (await tabs.beside(b""), log.listings)


class _Counted(InMemoryRunLogService):
    """Counts how often its workflows are listed."""

    listings = 0
    has_more = False

    async def list_workflows(
        self, *, limit: int = 50, start_after: Any | None = None
    ) -> tuple[list[WorkflowStats], str | None]:
        """See `RunLogReader.list_workflows`."""
        self.listings += 1
        stats, more = await super().list_workflows(limit=limit, start_after=start_after)
        return stats, "more" if self.has_more else more


class _Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds
