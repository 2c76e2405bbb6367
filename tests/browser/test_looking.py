"""How people find their way: by filters, by keys, on a telephone, in the dark, without a script."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from playwright.async_api import Browser, Page, expect

from run_log.core import PauseRequest, RunStatus, utc_now
from run_log.dashboard import create_app
from run_log.stores import SQLiteRunLogService
from run_log.testing import a_run

from .site import Site
from .windows import Opening, opening

PHONE = {"width": 400, "height": 800}

HOSTILE = [
    "a/b",
    "..",
    "-",
    "x:y",
    " ",
    "<script>document.title='pwned'</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "🦉 é ?&#%2F",
    "\u202egnp.exe",
    "a" * 1_024,
]


async def test_filters_are_in_the_address(log: SQLiteRunLogService, opened: Opening) -> None:
    """Filters are filled in, stand in the address, and going back undoes them one by one."""
    for name, region in (("r1", "eu"), ("r2", "us")):
        await log.save_run(a_run(id=name, labels={"region": region}))
    await log.save_run(a_run(id="f1", status=RunStatus.FAILED, labels={"region": "eu"}))
    window = await opened("/")

    await window.page.get_by_role("navigation", name="Status").get_by_text("failed").click()
    await expect(window.rows).to_contain_text(["f1"])
    await window.page.get_by_label("Label").fill("region=us")
    await window.page.get_by_role("button", name="Filter").click()
    await expect(window.page.get_by_text("No run here")).to_be_visible()
    assert "?status=failed&label=region=us" == window.page.url[window.page.url.index("?") :]

    await window.page.go_back()
    await expect(window.rows).to_contain_text(["f1"])
    await window.page.go_back()
    await expect(window.rows).to_have_count(3)


async def test_a_label_narrows_the_list(log: SQLiteRunLogService, opened: Opening) -> None:
    """A label of a row leads to the runs that have it."""
    for name, region in (("r1", "eu"), ("r2", "us")):
        await log.save_run(a_run(id=name, labels={"region": region}))
    window = await opened("/")

    await window.row("r2").get_by_role("link", name="region=us").click()

    await expect(window.rows).to_contain_text(["r2"])
    await expect(window.rows).to_have_count(1)


async def test_keys_move_and_open(log: SQLiteRunLogService, opened: Opening) -> None:
    """With keys alone one moves from run to run and opens one, filters, asks for help, and goes elsewhere."""
    now = utc_now()
    for number in range(3):
        await log.save_run(a_run(id=f"r{number}", started_at=now - timedelta(minutes=number)))
    window = await opened("/")
    keyboard = window.page.keyboard
    await expect(window.connection).to_have_text("live")

    for key in ("j", "j", "j", "k"):
        await keyboard.press(key)
    await expect(window.row("r1").get_by_role("link", name="r1")).to_be_focused()
    await keyboard.press("?")
    await expect(window.page.get_by_role("dialog")).to_be_visible()
    await keyboard.press("Escape")
    await keyboard.press("/")
    await expect(window.page.get_by_label("Workflow", exact=True)).to_be_focused()
    await keyboard.type("j")  # here it is a letter
    await expect(window.page.get_by_label("Workflow", exact=True)).to_have_value("j")
    await window.row("r1").get_by_role("link", name="r1").focus()
    await keyboard.press("o")
    await expect(window.page.get_by_role("heading", level=1)).to_have_text("r1")
    await keyboard.press("g")
    await keyboard.press("r")
    await expect(window.page.get_by_role("heading", level=1)).to_have_text("Runs")


async def test_keys_can_be_turned_off(log: SQLiteRunLogService, opened: Opening) -> None:
    """Whoever speaks to their browser turns the keys off, and they stay off."""
    await log.save_run(a_run(id="r1"))
    window = await opened("/")
    await window.page.keyboard.press("?")
    await window.page.get_by_label("Use these keys").uncheck()
    await window.page.get_by_role("button", name="Close").click()
    await window.page.reload()

    await window.page.keyboard.press("j")

    await expect(window.row("r1").get_by_role("link", name="r1")).not_to_be_focused()


async def test_times_in_another_zone(log: SQLiteRunLogService, opened: Opening) -> None:
    """Times are in UTC until a button shows them in the zone of the machine, also on the next page."""
    await log.save_run(a_run(id="r1", started_at=datetime(2025, 12, 31, 20, 30, tzinfo=UTC)))
    window = await opened("/", timezone_id="Asia/Kolkata")
    await expect(window.row("r1")).to_contain_text("12-31 20:30:00")
    await expect(window.page.get_by_text("Started (UTC)")).to_be_visible()

    await window.page.get_by_role("button", name="Times: UTC").click()
    await expect(window.row("r1")).to_contain_text("01-01 02:00:00")
    await window.page.reload()
    await expect(window.row("r1")).to_contain_text("01-01 02:00:00")
    await expect(window.page.get_by_text("Started (local)")).to_be_visible()

    await window.page.get_by_role("button", name="Times: local").click()
    await expect(window.row("r1")).to_contain_text("12-31 20:30:00")


async def test_a_row_that_comes_has_the_zone_of_the_others(log: SQLiteRunLogService, opened: Opening) -> None:
    """A row that the stream brings shows its times as those that were there do."""
    await log.save_run(a_run(id="r1"))
    window = await opened("/", timezone_id="Asia/Kolkata")
    await window.page.get_by_role("button", name="Times: UTC").click()

    await log.save_run(a_run(id="r2", started_at=datetime(2026, 3, 4, 20, 30, tzinfo=UTC)))

    await expect(window.row("r2")).to_contain_text("03-05 02:00:00")


async def test_the_list_without_a_script(log: SQLiteRunLogService, opened: Opening) -> None:
    """Without a script the list, its filters and its pages work."""
    now = utc_now()
    for number in range(60):
        status = RunStatus.FAILED if number == 55 else RunStatus.SUCCESS
        await log.save_run(a_run(id=f"r{number}", status=status, started_at=now - timedelta(minutes=number)))
    window = await opened("/", java_script_enabled=False)
    await expect(window.rows).to_have_count(50)

    await window.page.get_by_role("link", name="Older").click()
    await expect(window.rows).to_have_count(10)
    await window.page.get_by_role("link", name="failed").click()
    await expect(window.rows).to_contain_text(["r55"])
    await expect(window.page.get_by_role("button", name="Times")).to_have_count(0)


@pytest.mark.parametrize("name", HOSTILE, ids=[ascii(each)[:20] for each in HOSTILE])
async def test_what_others_wrote_is_text(log: SQLiteRunLogService, opened: Opening, name: str) -> None:
    """A run whose ids, labels, errors and payloads are hostile is a text on every page, also live."""
    run = a_run(
        id=name,
        workflow_id=name,
        status=RunStatus.FAILED,
        error=f"{name}\n{name}",
        error_type=name,
        labels={"x": name[:100]},
        trigger_data={name: name},
    )
    await log.save_run(a_run(id="r1"))
    window = await opened("/")

    await log.save_run(run)
    row = window.row(name, name)
    await expect(row).to_be_visible()
    await row.locator(".r a").click()
    await expect(window.page.locator("pre.error")).to_be_visible()
    await window.page.get_by_role("link", name="Show them").click()
    await window.open(f"/?error_type={'x'}")
    await window.page.go_back()

    assert "pwned" != await window.page.title()
    assert 0 == await window.page.locator("img, main script").count()


async def _overflows(page: Page) -> bool:
    return bool(await page.evaluate("document.documentElement.scrollWidth > innerWidth"))


async def test_a_telephone_shows_all_of_a_row(log: SQLiteRunLogService, opened: Opening) -> None:
    """On 400 pixels nothing has to be scrolled sideways, whatever ids and errors are."""
    await log.save_run(a_run(id="x" * 300, workflow_id="w" * 300, labels={"k" * 60: "v" * 128}))
    error = f"ValueError: {'e' * 400}"
    await log.save_run(a_run(id="r2", status=RunStatus.FAILED, error=error))

    window = await opened("/", viewport=PHONE)

    assert not await _overflows(window.page)
    await expect(window.row("r2")).to_contain_text("failed")


async def test_the_dark(log: SQLiteRunLogService, opened: Opening) -> None:
    """Who prefers the dark gets light text on a dark page."""
    await log.save_run(a_run(id="r1"))
    brightness: dict[str, float] = {}
    for scheme in ("light", "dark"):
        window = await opened("/", color_scheme=scheme)
        color: str = await window.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        brightness[scheme] = (
            sum(map(float, color.removeprefix("rgb(").removesuffix(")").split(",")[:3])) / 765
        )

    assert 0.8 < brightness["light"]
    assert 0.2 > brightness["dark"]


async def test_a_command_is_copied(log: SQLiteRunLogService, opened: Opening) -> None:
    """A button beside a command copies it, and says so."""
    await log.save_run(a_run(id="r1"))
    window = await opened("/operations", permissions=["clipboard-read", "clipboard-write"])
    button = window.page.get_by_role("button", name="Copy").first

    await button.click()

    await expect(window.page.get_by_role("button", name="Copied")).to_be_visible()
    copied: str = await window.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("run-log sweep")
    await expect(button).to_have_text("Copy")


async def test_the_pages_under_a_prefix(log: SQLiteRunLogService, browser: Browser) -> None:
    """Mounted in a platform's own app, pages, style, script, streams and forms work under its prefix."""
    await _ask_for_approval(log)
    platform = FastAPI()
    platform.mount("/ops/log", create_app(log))
    async with Site(platform, prefix="/ops/log") as site, opening(browser, site) as opened:
        window = await opened("/")
        await expect(window.connection).to_have_text("live")
        await log.save_run(a_run(id="r2"))
        await expect(window.row("r2")).to_be_visible()

        await window.page.get_by_role("link", name="Inbox").click()
        await window.page.get_by_label("Your name").fill("mei")
        await window.page.get_by_role("button", name="Approve").click()
        await expect(window.page.get_by_text("Answered: workflow-1 / r1")).to_be_visible()
        assert window.page.url.startswith(f"{site.root}/inbox")


async def _ask_for_approval(log: SQLiteRunLogService) -> None:
    await log.save_run(a_run(id="r1", status=RunStatus.PAUSED, pause=PauseRequest(reason="pay?")))
