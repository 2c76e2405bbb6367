from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest

from run_log.console.checks import Check, Verdict
from run_log.console.views.layout import Screen, Sheet, Table
from run_log.console.views.tables import (
    STYLES,
    VERDICT_STYLES,
    checks_table,
    elapsed,
    findings_table,
    history_table,
    moment,
    pending_table,
    run_line,
    run_sheet,
    runs_table,
    stale_table,
    status_text,
    summary_view,
    took,
    workflows_table,
)
from run_log.core import PauseRequest, RunStatus, Version, WorkflowRun
from run_log.stores import InMemoryRunLogService, PendingRun, WorkflowStats
from run_log.testing import a_run, an_event

COMMANDS = {
    "\x1b[2J": "\\x1b[2J",
    "\x9b2J": "\\x9b2J",
    "a\x07b\x08c": "a\\x07b\\x08c",
    "over\rwritten": "over\\rwritten",
    "\N{RIGHT-TO-LEFT OVERRIDE}txt.exe": "\\u202etxt.exe",
    "tab\there": "tab\\there",
    "two\nlines": "two\\nlines",
    "quote's": "quote's",
    "[red]x[/red] [/] :smile: a\\[b]": "[red]x[/red] [/] :smile: a\\[b]",
    "\N{SNOWMAN}\N{CJK UNIFIED IDEOGRAPH-5B57}": "\N{SNOWMAN}\N{CJK UNIFIED IDEOGRAPH-5B57}",
}
"""Text that a terminal or a console might obey, and how it is shown."""

UUID = "0688f5fb-d55a-7fff-a572-e77c53869667"
LONG_NAME = "invoices-of-the-european-branch"
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def _shown(view: Table | Sheet, width: int | None = 80) -> list[str]:
    return list(view.lines(Screen(width=width)))


def _a_paused_run(text: str) -> WorkflowRun:
    pause = PauseRequest(reason=text, assignee=text)
    return a_run(id=text, workflow_id=text, status=RunStatus.PAUSED, error=text, pause=pause)


def _a_failed_run(run_id: str = UUID, error: str = "no account\nat line 3") -> WorkflowRun:
    return a_run(id=run_id, workflow_id=LONG_NAME, status=RunStatus.FAILED, error=error)


def _stats(workflow_id: str) -> WorkflowStats:
    counts = dict.fromkeys(RunStatus, 1_234)
    return WorkflowStats(workflow_id=workflow_id, total=7_404, successful=1_234, by_status=counts, as_of=NOON)


def _a_pending_run(text: str) -> PendingRun:
    return PendingRun(
        run=_a_paused_run(text),
        paused_at=NOON,
        age=timedelta(hours=1),
        overdue=False,
        version=Version(1, 5, "e"),
    )


VIEWS: list[tuple[Callable[[str], Table | Sheet], int]] = [
    (lambda text: runs_table([_a_paused_run(text)]), 3),
    (lambda text: run_line(_a_paused_run(text)), 3),
    (lambda text: workflows_table([_stats(text)]), 1),
    (lambda text: pending_table([_a_pending_run(text)]), 4),
]
"""What shows a text, and how often it does."""


@pytest.mark.parametrize(("text", "shown"), COMMANDS.items(), ids=ascii)
@pytest.mark.parametrize(("view", "times"), VIEWS)
def test_odd_text_is_shown_literally(
    view: Callable[[str], Table | Sheet], times: int, text: str, shown: str
) -> None:
    """Ids, errors and reasons are shown as they are, neither as markup nor as a terminal's commands."""
    printed = "\n".join(_shown(view(text), None))

    assert times == printed.count(shown)
    assert "\x1b" not in printed


def test_one_line_or_two() -> None:
    """A row of 80 columns is one line; what does not fit is on a second, indented one."""
    lines = _shown(runs_table([_a_failed_run(), a_run(id=UUID[::-1])], workflow_id=LONG_NAME))

    assert [
        f"Runs of {LONG_NAME}",
        "RUN                                   STATUS   STARTED (UTC)          TOOK",
        f"{UUID}  failed   2026-01-01 00:00:00  1.50 s",
        "  no account",
        f"{UUID[::-1]}  success  2026-01-01 00:00:00  1.50 s",
    ] == lines


def test_a_long_id_has_a_line_of_its_own() -> None:
    """Of a run whose id takes the whole line, the status is below, in its column."""
    lines = _shown(runs_table([a_run(id="r" * 79)], workflow_id="w"))

    assert ["r" * 79, "     success  2026-01-01 00:00:00  1.50 s"] == lines[2:]


async def _usual_views() -> AsyncIterator[Table | Sheet]:
    """Yield each view of runs whose ids are UUIDs, of a workflow with a long name."""
    log = InMemoryRunLogService(now=lambda: NOON)
    pause = PauseRequest(reason="4,200 EUR for a machine: pay?", assignee="mei@example.com", deadline=NOON)
    steps = [
        a_run(id=UUID[::-1], workflow_id=LONG_NAME, status=RunStatus.RUNNING),
        a_run(id=UUID, workflow_id=LONG_NAME, status=RunStatus.PAUSED, pause=pause),
        _a_failed_run("0688f5fb-0000", "TimeoutError: no answer in 30 s " * 9),
        _a_failed_run("0688f5fb-0000", "late"),
    ]
    await log.apply([an_event(run, event_id=f"event-{number}") for number, run in enumerate(steps)])
    runs, _ = await log.list_runs(LONG_NAME)
    yield runs_table(runs)
    for run in runs:
        yield run_sheet(run)
        yield run_line(run)
        yield history_table(await log.get_history(*run.key))
    yield pending_table((await log.list_pending(now=NOON + timedelta(days=400)))[0])
    yield stale_table((await log.list_stale(timedelta(hours=1), now=NOON + timedelta(days=400)))[0])
    yield workflows_table((await log.list_workflows())[0])
    for view in summary_view(await log.get_summary(LONG_NAME, now=NOON)):
        yield view
    headings, problem = ["workflow", "what", "stored", "recounted", "note"], "cannot be read " * 9
    yield findings_table(
        headings, [[LONG_NAME, f"run {UUID}", "", "", problem], [LONG_NAME, "b0", "7", "0", ""]]
    )


async def test_odd_event_ids_are_shown_literally() -> None:
    """An event's id is shown as it is: any producer may have made it."""
    log = InMemoryRunLogService()
    await log.apply([an_event(a_run(), event_id="[/red]")])

    assert "[/red]" in _shown(history_table(await log.get_history("workflow-1", "run-1")))[1]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
async def test_every_view_fits(width: int) -> None:
    """On a terminal of 60 columns or more, no view of runs with usual names is broken by the terminal."""
    lines = [line async for view in _usual_views() for line in _shown(view, width)]

    assert lines
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("length", [31, 200])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_counts_never_vanish(width: int, length: int) -> None:
    """However long the name of one workflow is, each count of each is shown."""
    lines = _shown(workflows_table([_stats("w" * length), _stats("short")]), width)

    assert 2 * (1 + len(RunStatus)) == sum(line.count("1234") + line.count("7404") for line in lines)
    assert any("w" * length in line for line in lines)


def test_counts_that_move_below() -> None:
    """Counts for which there is no room say below their row what they count; the others keep their column."""
    below = [
        "  success: 1234  failed: 1234",
        "  skipped: 1234  cancelled: 1234",
        "  paused: 1234",
    ]

    lines = _shown(workflows_table([_stats("w" * 31), _stats("short")]), 40)

    assert [
        "WORKFLOW  TOTAL  PENDING  RUNNING",
        "w" * 31,
        "           7404     1234     1234",
        *below,
        "short      7404     1234     1234",
        *below,
    ] == lines


def test_a_wide_table() -> None:
    """With no bound a row is one line that has all, and a cell without anything is told too."""
    runs = [_a_failed_run(error="e" * 10_000 + "\nand more"), a_run(id="r2", status=RunStatus.RUNNING)]

    lines = _shown(runs_table(runs, workflow_id=LONG_NAME), None)

    assert 3 == len(lines)
    assert lines[1].endswith("e\\nand more")
    assert ["r2", "running", "2026-01-01", "00:00:00", "-", "workflow-1", "-"] == lines[2].split()


def test_a_pause_that_says_little() -> None:
    """A pause without assignee and deadline is anybody's, and has none."""
    run = a_run(status=RunStatus.PAUSED, pause=PauseRequest(reason="go on?"))
    pending = PendingRun(
        run=run, paused_at=NOON, age=timedelta(hours=1), overdue=False, version=Version(1, 5, "e")
    )

    assert ["run-1", "1:00:00", "none", "anybody", "workflow-1", "go", "on?", "1:5:e"] == _shown(
        pending_table([pending])
    )[1].split()


async def test_a_history_with_an_anomaly() -> None:
    """A step that breaks the state machine is noted beside it."""
    log = InMemoryRunLogService()
    await log.apply([an_event(a_run()), an_event(a_run(status=RunStatus.RUNNING))])

    shown = _shown(history_table(await log.get_history("workflow-1", "run-1")))

    assert [line for line in shown if "breaks the state machine" in line] == [
        line for line in shown if "running" in line
    ]


def test_what_is_found_twice_is_told_once() -> None:
    """Checks that found the same as one before refer to it, and the remedy is said once, under its name."""
    checks = [
        Check(name=name, verdict=Verdict.WRONG, found="Pub/Sub does not answer " * 4, remedy="start it")
        for name in ("topic", "subscription")
    ]

    lines = _shown(checks_table(checks))

    assert 1 == sum("what to do: start it" in line for line in lines)
    assert "subscription  wrong    as for topic" == lines[-1]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("status", RunStatus)
def test_every_status_is_a_word(status: RunStatus) -> None:
    """Every status is shown by its word; colours are those that any background leaves readable."""
    text = status_text(status)

    assert status.value == text.text
    assert {*STYLES.values(), *VERDICT_STYLES.values()} <= {"red", "green", "cyan", "magenta"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (datetime(2026, 3, 4, 5, 6, 7, 999_999, tzinfo=UTC), "2026-03-04 05:06:07"),
        (datetime.min.replace(tzinfo=UTC), "0001-01-01 00:00:00"),
        (datetime.max.replace(tzinfo=UTC), "9999-12-31 23:59:59"),
    ],
)
def test_moments(value: datetime, shown: str) -> None:
    """A moment of any year is shown to the second."""
    assert shown == moment(value)


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (0, "0.0 ms"),
        (61.5, "61.5 ms"),
        (1_000, "1.00 s"),
        (2_130, "2.13 s"),
        (60_000, "0:01:00"),
        (3_700_000, "1:01:40"),
        (100_000_000, "1d 03:46:40"),
        (-419_944.1, "-0:06:59"),
        (1.8e18, "2.08e+10 days"),
        (1e308, "1.16e+300 days"),
        (math.nan, "nan ms"),
        (math.inf, "inf ms"),
    ],
)
def test_durations(milliseconds: float, shown: str) -> None:
    """Every number that may stand for a duration has some form."""
    assert shown == took(milliseconds)


def test_elapsed_time() -> None:
    """A time that goes on is shown to the second, also one that has not begun."""
    values = (timedelta(0), timedelta(seconds=5), timedelta(seconds=-5), timedelta(days=1))

    assert ["0:00:00", "0:00:05", "-0:00:05", "1d 00:00:00"] == [elapsed(value) for value in values]


def test_payloads() -> None:
    """A payload is shown as JSON, on lines of its own unless it is nested so deep that those were empty."""
    deep: object = "x"
    for _ in range(300):
        deep = [deep]

    flat = _shown(run_sheet(a_run(result={"a": [1], "\ud800": 2**70})))
    nested = _shown(run_sheet(a_run(result={"a": deep})))

    assert ["{", '  "a": [', "    1", "  ],", f'  "\\ud800": {2**70}', "}"] == [
        line[17:] for line in flat[-6:]
    ]
    assert f'result           {{"a": {"[" * 300}"x"{"]" * 300}}}' == nested[-1]
