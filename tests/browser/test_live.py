"""What people see while runs go on."""

from __future__ import annotations

from datetime import timedelta

from playwright.async_api import Locator, expect

from run_log.core import RunStatus, utc_now
from run_log.stores import SQLiteRunLogService
from run_log.testing import a_run

from .site import Site
from .windows import Opening


async def _marked(row: Locator) -> None:
    """Mark the very element, so that one in its place is told from it."""
    await row.evaluate("element => { element.marked = true; }")


async def _is_marked(row: Locator) -> bool:
    return bool(await row.evaluate("element => element.marked === true"))


async def test_a_run_appears_while_one_looks(log: SQLiteRunLogService, opened: Opening) -> None:
    """A run that begins is put first on the open page, and what was there stays."""
    await log.save_run(a_run(id="earlier", started_at=utc_now() - timedelta(minutes=1)))
    window = await opened("/")
    await _marked(window.row("earlier"))

    await log.save_run(a_run(id="later", status=RunStatus.RUNNING, started_at=utc_now()))

    await expect(window.rows).to_contain_text(["later", "earlier"])
    assert await _is_marked(window.row("earlier"))


async def test_the_first_run_fills_an_empty_page(log: SQLiteRunLogService, opened: Opening) -> None:
    """Where nothing is recorded yet, the page shows the first run without being asked."""
    window = await opened("/")
    await expect(window.page.get_by_text("No run is recorded yet")).to_be_visible()

    await log.save_run(a_run(id="first"))

    await expect(window.rows).to_contain_text(["first"])


async def test_a_running_row_succeeds_in_place(log: SQLiteRunLogService, opened: Opening) -> None:
    """A row whose run ends says so in the same element: nothing else on the page moves."""
    begun = utc_now()
    await log.save_run(a_run(id="older", started_at=begun - timedelta(hours=1)))
    await log.save_run(a_run(id="r1", status=RunStatus.RUNNING, started_at=begun))
    window = await opened("/")
    await _marked(window.row("r1"))
    await window.row("r1").get_by_role("link", name="r1").focus()

    await log.save_run(a_run(id="r1", status=RunStatus.SUCCESS, started_at=begun))

    await expect(window.row("r1")).to_contain_text("success")
    assert await _is_marked(window.row("r1"))
    await expect(window.row("r1").get_by_role("link", name="r1")).to_be_focused()
    await expect(window.rows).to_have_count(2)


async def test_an_old_run_is_not_put_first(log: SQLiteRunLogService, opened: Opening) -> None:
    """A run that changes long after it began comes where it belongs by its start."""
    now = utc_now()
    for name, hours in (("new", 1), ("old", 3)):
        await log.save_run(a_run(id=name, started_at=now - timedelta(hours=hours)))
    window = await opened("/")
    await expect(window.connection).to_have_text("live")

    await log.save_run(a_run(id="between", started_at=now - timedelta(hours=2)))

    await expect(window.rows).to_contain_text(["new", "between", "old"])


async def test_a_page_keeps_its_length(log: SQLiteRunLogService, opened: Opening) -> None:
    """A first page shows fifty runs, however many come: the oldest of them leave it."""
    now = utc_now()
    for number in range(50):
        await log.save_run(a_run(id=f"r{number}", started_at=now - timedelta(minutes=100 - number)))
    window = await opened("/")
    await expect(window.connection).to_have_text("live")

    for number in range(50, 60):
        await log.save_run(a_run(id=f"r{number}", started_at=now - timedelta(minutes=100 - number)))

    await expect(window.rows.first).to_contain_text("r59")
    await expect(window.rows).to_have_count(50)
    await expect(window.rows.last).to_contain_text("r10")


async def test_a_row_leaves_a_list_that_it_is_no_part_of(log: SQLiteRunLogService, opened: Opening) -> None:
    """A list of running runs loses the row of one that ends, and gets none of other runs."""
    begun = utc_now()
    for name in ("ends", "goes-on"):
        await log.save_run(a_run(id=name, status=RunStatus.RUNNING, started_at=begun))
    window = await opened("/?status=running")
    await expect(window.rows).to_have_count(2)

    await log.save_run(a_run(id="other", started_at=begun))
    await log.save_run(a_run(id="ends", started_at=begun))

    await expect(window.rows).to_contain_text(["goes-on"])
    await expect(window.rows).to_have_count(1)


async def test_counts_follow(log: SQLiteRunLogService, opened: Opening) -> None:
    """The counts above the list follow what happens, a few seconds later."""
    begun = utc_now()
    await log.save_run(a_run(id="r1", status=RunStatus.RUNNING, started_at=begun))
    window = await opened("/")
    tabs = window.page.get_by_role("navigation", name="Status")
    await expect(tabs).to_contain_text("running 1")
    await expect(window.connection).to_have_text("live")

    await log.save_run(a_run(id="r1", started_at=begun))
    await log.save_run(a_run(id="r2", started_at=begun))

    await expect(tabs).to_contain_text("running 0")
    await expect(tabs).to_contain_text("success 2")


async def test_what_is_typed_stays(log: SQLiteRunLogService, opened: Opening) -> None:
    """What somebody types into the filters stays while rows come, and so does the focus."""
    await log.save_run(a_run(id="r1"))
    window = await opened("/")
    field = window.page.get_by_label("Workflow", exact=True)
    await field.fill("invo")

    await log.save_run(a_run(id="r2"))

    await expect(window.rows).to_have_count(2)
    await expect(field).to_have_value("invo")
    await expect(field).to_be_focused()


async def test_a_selection_stays(log: SQLiteRunLogService, opened: Opening) -> None:
    """A text that somebody has selected in a row is replaced only once they let go of it."""
    failed = a_run(id="r1", status=RunStatus.FAILED, error="ValueError: message 4711 has no sender")
    await log.save_run(failed)
    window = await opened("/")
    note = window.row("r1").locator(".n")
    await note.select_text()

    await log.save_run(failed.model_copy(update={"error": "ValueError: another"}))
    await log.save_run(a_run(id="r2"))

    await expect(window.rows).to_have_count(2)  # the change before it has come, too
    await expect(note).to_have_text("ValueError: message 4711 has no sender")
    assert "message 4711" in await window.page.evaluate("getSelection().toString()")
    await window.page.evaluate("getSelection().empty()")
    await expect(note).to_have_text("ValueError: another")


async def test_the_scroll_position_stays(log: SQLiteRunLogService, opened: Opening) -> None:
    """The row that somebody has scrolled to stays where it is while others come above it."""
    now = utc_now()
    for number in range(40):
        await log.save_run(a_run(id=f"r{number}", started_at=now - timedelta(minutes=100 - number)))
    window = await opened("/", viewport={"width": 1200, "height": 400})
    await expect(window.connection).to_have_text("live")
    row = window.row("r10")
    await row.scroll_into_view_if_needed()
    before = await row.bounding_box()

    await log.save_run(a_run(id="new", started_at=now))

    await expect(window.rows).to_have_count(41)
    after = await row.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(before["y"] - after["y"]) < 2


async def test_elapsed_time_ticks(log: SQLiteRunLogService, opened: Opening) -> None:
    """How long a run has been under way goes on by itself."""
    await log.save_run(a_run(id="r1", status=RunStatus.RUNNING, started_at=utc_now()))
    window = await opened("/")
    since = window.row("r1").locator("[data-since]")
    shown = await since.inner_text()

    await expect(since).not_to_have_text(shown)


async def test_a_stream_that_is_cut_goes_on(log: SQLiteRunLogService, site: Site, opened: Opening) -> None:
    """What happened while the server was away comes once it is back, each run once, without a reload."""
    await log.save_run(a_run(id="r0"))
    window = await opened("/")
    window.expects("net::ERR_|Failed to load resource")
    await expect(window.connection).to_have_text("live")
    await _marked(window.row("r0"))

    await site.stop()
    await expect(window.connection).to_have_text("reconnecting")
    for number in range(1, 4):
        await log.save_run(a_run(id=f"r{number}"))
    await site.start()

    await expect(window.connection).to_have_text("live")
    await expect(window.rows).to_have_count(4)
    assert await _is_marked(window.row("r0"))


async def test_a_hidden_tab_pauses(log: SQLiteRunLogService, opened: Opening) -> None:
    """A tab that nobody sees holds no stream; seen again it shows what happened meanwhile."""
    await log.save_run(a_run(id="r0"))
    window = await opened("/")
    await expect(window.connection).to_have_text("live")

    await window.hide()
    await expect(window.connection).to_have_text("paused")
    await log.save_run(a_run(id="r1"))
    await log.save_run(a_run(id="r2"))
    await window.show()

    await expect(window.connection).to_have_text("live")
    await expect(window.rows).to_have_count(3)
