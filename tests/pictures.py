"""Take the pictures of the documentation: ``python -m tests.pictures [folder]``."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from playwright.async_api import Browser, expect
from tests.browser.chromium import started_chromium
from tests.browser.site import Site

from run_log.console.work.sample import COLLEAGUE, PAYMENT
from run_log.console.work.sample_past import EXPENSES, INVOICES, MAILS, REPORTS, past
from run_log.core import RunEvent, RunProgress, RunStatus, Step, StepStatus, TriggerType, WorkflowRun
from run_log.core.clock import micros_of
from run_log.dashboard import create_app
from run_log.stores import RunLogService, SQLiteRunLogService
from run_log.stores.notices import DeadLetterNotice, NoticeKind, VerifyNotice

NOW: Final = datetime(2026, 6, 16, 10, 4, 30, tzinfo=UTC)
FOLDER: Final = Path(__file__).parent.parent / "docs" / "pictures"
WIDTH: Final = 1_440


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A page as somebody sees it."""

    name: str
    path: str
    height: int
    scheme: Literal["light", "dark"] = "light"
    width: int = WIDTH


PICTURES: Final = (
    Picture(name="runs", path="/", height=620),
    Picture(name="runs-dark", path="/", height=620, scheme="dark"),
    Picture(name="run", path="/workflows/invoices~2Fsync/runs/20260616-100358-5e21", height=820),
    Picture(name="inbox", path="/inbox", height=560),
)


async def take(folder: Path, pictures: tuple[Picture, ...] = PICTURES) -> None:
    """Write *pictures* into *folder*."""
    with tempfile.TemporaryDirectory() as data:
        log = SQLiteRunLogService(path=Path(data) / "runs.sqlite3", now=lambda: NOW)
        await log.apply([*past(NOW - timedelta(minutes=9), random.Random(4)), *present()])
        await tell(log)
        async with started_chromium() as browser, Site(create_app(log, now=lambda: NOW)) as site:
            for picture in pictures:
                await _take(browser, site, picture, folder)
        await log.close()


async def _take(browser: Browser, site: Site, picture: Picture, folder: Path) -> None:
    context = await browser.new_context(
        color_scheme=picture.scheme,
        viewport={"width": picture.width, "height": picture.height},
        reduced_motion="reduce",
    )
    page = await context.new_page()
    await page.clock.set_fixed_time(NOW)
    await page.goto(site.root + picture.path)
    if await page.locator("[data-live]").count():
        await expect(page.locator("#connection")).to_have_text("live")
    await page.screenshot(path=folder / f"{picture.name}.png", animations="disabled")
    await context.close()


async def tell(log: RunLogService) -> None:
    """Have a projector tell *log* of dead letters, and a recount of what it has found."""
    told = (
        (2, "invalid_event", "started_at: Input should have timezone info", INVOICES, "20260616-100212-71ab"),
        (9, "invalid_event", "started_at: Input should have timezone info", INVOICES, "20260616-095530-02c9"),
        (
            64,
            "unsupported_version",
            "the event is of schema 2-0-0, and this projector knows 1-1-0",
            None,
            None,
        ),
    )
    letters = [
        DeadLetterNotice(
            at=NOW - timedelta(minutes=minutes),
            reason=reason,
            error=error,
            message_id=str(number),
            workflow_id=workflow_id,
            run_id=run_id,
        )
        for number, (minutes, reason, error, workflow_id, run_id) in enumerate(told)
    ]
    found = VerifyNotice(
        at=NOW - timedelta(hours=7),
        workflow_id=None,
        workflows=4,
        runs=8_412,
        repaired=0,
        differing=1,
        first=(MAILS,),
    )
    await log.put_notices(NoticeKind.DEAD_LETTER, [one.stored(one.message_id) for one in letters])
    await log.put_notices(NoticeKind.VERIFICATION, [found.stored()])


def present() -> Iterator[RunEvent]:
    """Yield the events of runs that are under way, wait for somebody, or have just ended."""
    yield from _sync("20260616-100358-5e21", seconds=32, region="eu", fails=True)
    yield from _sync("20260616-100421-0c7d", seconds=9, region="us", fails=False)
    for number, (seconds, subject) in enumerate(
        ((75, "Invoice 4711"), (20, "Offer 88"), (4, "Invoice 4712"))
    ):
        data = {"message": 4_711 + number, "subject": subject, "from": "billing@example.com"}
        yield from _run(
            MAILS, seconds, TriggerType.GMAIL_PUSH, took=0.6, trigger_data=data, result={"folder": "invoices"}
        )
    yield from _run(REPORTS, 17, TriggerType.SCHEDULED, progress={"fraction": 0.67, "text": "region apac"})
    choices = {"choices": ["pay", "wait"]}
    pauses: list[tuple[int, str, dict[str, Any]]] = [
        (340, "2,310 EUR for two desks: pay?", {"assignee": COLLEAGUE, "form": PAYMENT, "deadline": 8}),
        (210, "84 EUR for books: pay?", {**choices, "default_choice": "wait", "deadline": 11}),
        (130, "640 EUR for travel to Lyon: pay?", {**choices, "deadline": 95}),
    ]
    for seconds, reason, pause in pauses:
        deadline = NOW + timedelta(minutes=pause.pop("deadline"))
        yield from _run(
            EXPENSES,
            seconds,
            TriggerType.FILE_UPLOAD,
            labels={"team": "office"},
            trigger_data={"amount": int(reason.split(" ")[0].replace(",", "")), "currency": "EUR"},
            pause={"reason": reason, "deadline": deadline, **pause},
        )


def _run(
    workflow_id: str, seconds: int, trigger_type: TriggerType, *, took: float | None = None, **fields: Any
) -> Iterator[RunEvent]:
    begun = NOW - timedelta(seconds=seconds)
    running = WorkflowRun(
        id=f"{begun:%Y%m%d-%H%M%S}-{seconds * 997 % 65_536:04x}",
        workflow_id=workflow_id,
        trigger_type=trigger_type,
        status=RunStatus.RUNNING,
        started_at=begun,
        **{name: value for name, value in fields.items() if name not in {"pause", "result"}},
    )
    yield _event(running, begun)
    if "pause" in fields:
        paused = {"status": RunStatus.PAUSED, "pause": fields["pause"]}
        yield _event(WorkflowRun.model_validate({**dict(running), **paused}), begun + timedelta(seconds=2))
    if took is not None:
        end = begun + timedelta(seconds=took)
        ended = {"status": RunStatus.SUCCESS, "completed_at": end, "duration_ms": took * 1_000}
        yield _event(
            WorkflowRun.model_validate({**dict(running), **ended, "result": fields.get("result", {})}), end
        )


def _sync(name: str, *, seconds: int, region: str, fails: bool) -> Iterator[RunEvent]:
    """Yield a run of three steps, of which the last is tried three times in vain, or is under way."""
    begun = NOW - timedelta(seconds=seconds)
    running = WorkflowRun(
        id=name,
        workflow_id=INVOICES,
        trigger_type=TriggerType.SCHEDULED,
        trigger_data={"since": "2026-06-16T09:00:00Z", "bucket": f"invoices-{region}"},
        status=RunStatus.RUNNING,
        started_at=begun,
        labels={"team": "billing", "region": region},
        progress=RunProgress(fraction=1, text="7 of 7 files")
        if fails
        else RunProgress(fraction=0.43, text="3 of 7 files"),
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    )
    error = "502 from billing-3.example.com"
    spans: list[tuple[str, float, float | None, dict[str, Any]]] = [
        ("download", 0, 2.4, {"files": 7, "bucket": f"invoices-{region}"}),
        ("parse", 2.4, 7.3 if fails else None, {}),
        *([("post", 11.2, 13.1, {"endpoint": "/v2/invoices"})] if fails else []),
    ]
    steps = tuple(
        Step(
            key=step,
            name=step,
            attempt=3 if step == "post" else 1,
            status=_status(step, end),
            started_at=begun + timedelta(seconds=start),
            ended_at=None if end is None else begun + timedelta(seconds=end),
            error=f"ConnectionError: {error}" if step == "post" else None,
            attributes=attributes,
            version=micros_of(begun + timedelta(seconds=end or start)),
        )
        for step, start, end, attributes in spans
    )
    yield _event(running, begun, steps)
    if fails:
        end = begun + timedelta(seconds=13.2)
        trace = (
            '  File "sync.py", line 41, in sync\n    await post(invoices)\n'
            '  File "billing.py", line 12, in post\n'
        )
        failed = {
            "status": RunStatus.FAILED,
            "completed_at": end,
            "duration_ms": 13_200,
            "error": f"ConnectionError: {error}\n{trace}    raise ConnectionError(answer.reason)",
            "error_type": "ConnectionError",
        }
        yield _event(WorkflowRun.model_validate({**dict(running), **failed}), end, steps)


def _status(step: str, end: float | None) -> StepStatus:
    if step == "post":
        return StepStatus.FAILED
    return StepStatus.RUNNING if end is None else StepStatus.SUCCESS


def _event(run: WorkflowRun, moment: datetime, steps: tuple[Step, ...] = ()) -> RunEvent:
    return RunEvent(hlc=micros_of(moment), occurred_at=moment, run=run, steps=steps)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    target.mkdir(parents=True, exist_ok=True)
    asyncio.run(take(target))
