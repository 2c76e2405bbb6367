"""How people find what went wrong, and answer what waits for them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final

from playwright.async_api import Locator, expect

from run_log.core import PauseRequest, RunEvent, RunStatus, Step, StepStatus, utc_now
from run_log.core.clock import micros_of
from run_log.stores import SQLiteRunLogService
from run_log.testing import a_run

from .windows import Opening

FORM: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "amount": {"type": "number", "title": "Amount", "minimum": 1},
        "account": {"type": "string", "title": "Account", "enum": ["4711", "4712"]},
    },
    "required": ["amount", "account"],
}
RUN: Final = "/workflows/workflow-1/runs/"


async def _ask(log: SQLiteRunLogService, name: str, **pause: Any) -> None:
    request = PauseRequest(reason=f"{name}: pay?", **pause)
    await log.save_run(a_run(id=name, status=RunStatus.PAUSED, pause=request, started_at=utc_now()))


async def _fill_in(form: Locator, *, who: str, amount: str = "12.5") -> None:
    await form.get_by_label("Amount").fill(amount)
    await form.get_by_label("Account").select_option("4712")
    await form.get_by_label("Your name").fill(who)


async def test_a_failure_is_found_and_read(log: SQLiteRunLogService, opened: Opening) -> None:
    """From the list to the failed run, to the step that failed and what it said."""
    begun = utc_now() - timedelta(minutes=1)
    error = "ConnectionError: 502 from billing"
    step = Step(
        key="post",
        name="post",
        attempt=3,
        status=StepStatus.FAILED,
        started_at=begun,
        ended_at=begun + timedelta(seconds=2),
        error=error,
        attributes={"endpoint": "/v2/invoices"},
        version=micros_of(begun),
    )
    failed = a_run(id="broken", status=RunStatus.FAILED, started_at=begun, error=f"{error}\n  File sync.py")
    await log.apply([RunEvent(run=failed, steps=(step,))])
    await log.save_run(a_run(id="fine", started_at=begun))
    window = await opened("/")

    await window.page.get_by_role("navigation", name="Status").get_by_text("failed").click()
    await expect(window.rows).to_have_count(1)
    await window.page.get_by_role("link", name="broken").click()

    await expect(window.page.locator("pre.error")).to_contain_text("File sync.py")
    lane = window.page.get_by_role("row", name="post")
    await expect(lane).to_contain_text("attempt 3")
    await expect(lane).to_contain_text("502 from billing")
    await expect(lane).to_contain_text("/v2/invoices")


async def test_a_form_is_filled_in(log: SQLiteRunLogService, opened: Opening) -> None:
    """An answer by a form is recorded with its values, its comment and who gave it; then comes the next."""
    await _ask(log, "first", form=FORM, deadline=utc_now() + timedelta(hours=1))
    await _ask(log, "second", choices=["yes", "no"], deadline=utc_now() + timedelta(hours=2))
    window = await opened("/inbox")

    await _fill_in(window.row("first"), who="mei")
    await window.row("first").get_by_label("Comment").fill("fine")
    await window.page.get_by_role("button", name="Approve").click()

    await expect(window.page.get_by_text("Answered: workflow-1 / first")).to_be_visible()
    await window.page.get_by_role("button", name="yes").click()
    await expect(window.page.get_by_text("Nothing waits for an answer")).to_be_visible()
    run = await log.get_run("workflow-1", "first")
    assert run is not None
    assert run.pause is not None
    assert ({"amount": 12.5, "account": "4712"}, "mei", "fine") == (
        run.pause.values,
        run.pause.answered_by,
        run.pause.comment,
    )


async def test_what_is_wrong_with_a_form_is_said(log: SQLiteRunLogService, opened: Opening) -> None:
    """A value that the form does not allow is refused with the reason at its field; what was typed stays."""
    await _ask(log, "r1", form={**FORM, "properties": {**FORM["properties"], "amount": {"multipleOf": 5}}})
    window = await opened(f"{RUN}r1", java_script_enabled=False)

    await window.page.get_by_label("amount").fill("7")
    await window.page.get_by_label("Account").select_option("4711")
    await window.page.get_by_label("Your name").fill("mei")
    window.expects("400")
    await window.page.get_by_role("button", name="Approve").click()

    await expect(window.page.get_by_label("amount")).to_have_value("7")
    await expect(window.page.locator("[aria-invalid=true]")).to_have_count(1)
    await expect(window.page.get_by_label("Your name")).to_have_value("mei")


async def test_two_people_answer_at_once(log: SQLiteRunLogService, opened: Opening) -> None:
    """Of two who answer the same pause at the same time one succeeds; the other one sees who it was."""
    await _ask(log, "r1", form=FORM)
    windows = {who: await opened(f"{RUN}r1") for who in ("mei", "tom")}
    for who, window in windows.items():
        window.expects("409")
        await _fill_in(window.page.locator("form.answer"), who=who)

    await asyncio.gather(
        *(window.page.get_by_role("button", name="Approve").click() for window in windows.values())
    )

    run = await log.get_run("workflow-1", "r1")
    assert run is not None
    assert run.pause is not None
    winner = run.pause.answered_by
    (loser,) = set(windows) - {winner}
    told = windows[loser].page.get_by_role("alert")
    await expect(told).to_contain_text(f"Already answered by {winner}")
    await expect(told).to_contain_text("was not recorded")


async def test_an_answer_shows_where_the_run_is_open(log: SQLiteRunLogService, opened: Opening) -> None:
    """A page of a paused run says that somebody else has answered, without being asked."""
    await _ask(log, "r1", choices=["yes", "no"])
    window = await opened(f"{RUN}r1")
    await expect(window.connection).to_have_text("live")

    await log.resume("workflow-1", "r1", answered_by="mei", choice="yes")

    await expect(window.page.get_by_text("answered by mei")).to_be_visible()
    await expect(window.page.get_by_role("button", name="yes")).to_have_count(0)


async def test_a_run_ends_while_its_page_is_open(log: SQLiteRunLogService, opened: Opening) -> None:
    """The page of a running run tells how it ended, and what is open on it stays open."""
    begun = utc_now()
    await log.save_run(a_run(id="r1", status=RunStatus.RUNNING, started_at=begun))
    window = await opened(f"{RUN}r1?payloads=1")
    await expect(window.connection).to_have_text("live")

    await log.save_run(a_run(id="r1", status=RunStatus.FAILED, started_at=begun, error="it broke"))

    await expect(window.page.locator("pre.error")).to_have_text("it broke")
    await expect(window.page.get_by_role("heading", name="Trigger data", exact=True)).to_be_visible()


async def test_the_inbox_is_alive(log: SQLiteRunLogService, opened: Opening) -> None:
    """What begins to wait appears in the inbox, and what somebody else answers leaves it."""
    window = await opened("/inbox")
    await expect(window.page.get_by_text("Nothing waits for an answer")).to_be_visible()

    await _ask(log, "r1")
    await _ask(log, "r2")
    await expect(window.page.locator("details.item")).to_have_count(2)
    await log.resume("workflow-1", "r1", answered_by="mei")

    await expect(window.page.locator("details.item")).to_have_count(1)
    await expect(window.row("r2")).to_be_visible()


async def test_a_form_that_is_typed_in_stays(log: SQLiteRunLogService, opened: Opening) -> None:
    """What somebody types into a form stays, whatever comes, also where the run is answered meanwhile."""
    await _ask(log, "r1", deadline=utc_now() + timedelta(hours=1))
    window = await opened("/inbox")
    window.expects("409")
    comment = window.row("r1").get_by_label("Comment")
    await comment.fill("I have asked")

    await _ask(log, "r2", deadline=utc_now() + timedelta(hours=2))
    await expect(window.row("r2")).to_be_visible()
    await log.resume("workflow-1", "r1", answered_by="mei")
    await log.resume("workflow-1", "r2", answered_by="mei")
    await expect(window.row("r2")).to_have_count(0)

    await expect(comment).to_have_value("I have asked")
    await expect(comment).to_be_focused()
    await window.row("r1").get_by_label("Your name").fill("tom")
    await window.row("r1").get_by_role("button", name="Approve").click()
    await expect(window.page.get_by_role("alert")).to_contain_text("Already answered by mei")
    await expect(window.page.get_by_role("alert")).to_contain_text("I have asked")


async def test_answering_without_a_script(log: SQLiteRunLogService, opened: Opening) -> None:
    """Without a script runs are opened, their payloads shown, and their questions answered."""
    await _ask(log, "r1", form=FORM)
    window = await opened("/", java_script_enabled=False)

    await window.page.get_by_role("link", name="r1", exact=True).click()
    await window.page.get_by_role("link", name="Show them").click()
    await expect(window.page.get_by_role("heading", name="Trigger data", exact=True)).to_be_visible()
    await window.page.get_by_role("link", name="Inbox").click()
    await _fill_in(window.row("r1"), who="mei")
    await window.page.get_by_role("button", name="Reject").click()

    await expect(window.page.get_by_text("Rejected: workflow-1 / r1")).to_be_visible()
    run = await log.get_run("workflow-1", "r1")
    assert run is not None
    assert RunStatus.FAILED is run.status


async def test_the_one_before_is_answered(log: SQLiteRunLogService, opened: Opening) -> None:
    """Who is at a field stays there when somebody answers a run above it, and its cursor does not move."""
    for hours, name in enumerate(("first", "second", "third"), start=1):
        await _ask(log, name, deadline=utc_now() + timedelta(hours=hours))
    window = await opened("/inbox")
    await expect(window.connection).to_have_text("live")
    await window.row("third").locator("summary").click()
    comment = window.row("third").get_by_label("Comment")
    await comment.fill("wait")
    await comment.evaluate("field => field.setSelectionRange(1, 3)")

    await log.resume("workflow-1", "second", answered_by="bob")
    await expect(window.row("second")).to_have_count(0)

    await expect(comment).to_be_focused()
    assert [1, 3] == await comment.evaluate("field => [field.selectionStart, field.selectionEnd]")
