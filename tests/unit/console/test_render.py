from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from rich.console import Console
from rich.table import Table

from run_log.console._render import (
    STYLES,
    history_table,
    inbox_table,
    literal,
    moment,
    runs_table,
    stats_table,
    status_text,
)
from run_log.core import PauseRequest, RunStatus, Transition, WorkflowRun
from run_log.stores import InMemoryRunLogService
from run_log.testing import a_run, an_event

ODD = [
    "[red]x[/red]",
    "[/]",
    "[link=https://example.com]x[/link]",
    ":smile:",
    "a\\[b]",
    "\N{SNOWMAN}\N{CJK UNIFIED IDEOGRAPH-5B57}",
]
"""Text that a console might take for something else."""

COMMANDS = {
    "\x1b[2J": "\\x1b[2J",
    "\x9b2J": "\\x9b2J",
    "a\x07b\x08c": "a\\x07b\\x08c",
    "over\rwritten": "over\\rwritten",
    "\N{RIGHT-TO-LEFT OVERRIDE}txt.exe": "\\u202etxt.exe",
    "tab\there": "tab\\there",
    "quote's": "quote's",
}
"""Text that a terminal might obey, and how it is shown."""


def _shown(table: Table, *, width: int = 300) -> str:
    printed = io.StringIO()
    Console(width=width, file=printed, force_terminal=False).print(table)
    return printed.getvalue()


def _a_paused_run(text: str) -> WorkflowRun:
    return a_run(
        id=text,
        workflow_id=text,
        status=RunStatus.PAUSED,
        error=text,
        pause=PauseRequest(reason=text, assignee=text),
    )


async def _history_of(*runs: WorkflowRun, event_id: str | None = None) -> tuple[Transition, ...]:
    store = InMemoryRunLogService()
    await store.apply([an_event(run, event_id=event_id) for run in runs])
    return await store.get_history(runs[0].workflow_id, runs[0].id)


def _runs(text: str) -> Table:
    return runs_table([_a_paused_run(text)])


def _stats(text: str) -> Table:
    return stats_table({text: {"total": 1, "successful": 0}})


def _inbox(text: str) -> Table:
    return inbox_table([_a_paused_run(text)])


def _history(text: str) -> Table:
    return history_table(text, ())


TABLES = [(_runs, 3), (_stats, 1), (_inbox, 4), (_history, 1)]
"""Tables that show a text, and how often each does."""


@pytest.mark.parametrize(("text", "shown"), [*((text, text) for text in ODD), *COMMANDS.items()], ids=ascii)
@pytest.mark.parametrize(("table", "times"), TABLES)
def test_odd_text_is_shown_literally(
    table: Callable[[str], Table], times: int, text: str, shown: str
) -> None:
    """Ids, errors and reasons are shown as they are, neither as markup nor as a terminal's commands."""
    printed = _shown(table(text))

    assert times == printed.count(shown)
    assert "\x1b" not in printed


async def test_odd_event_ids_are_shown_literally() -> None:
    """An event's id is shown as it is: any producer may have made it."""
    history = await _history_of(a_run(), event_id="[/red]")

    assert "[/red]" in _shown(history_table("run-1", history))


def test_a_narrow_terminal() -> None:
    """A table fits any width."""
    printed = _shown(runs_table([a_run(id="r" * 200, error="e" * 200)]), width=40)

    assert 40 >= max(map(len, printed.splitlines()))


def test_empty_tables() -> None:
    """Without anything to show, every table still has its title."""
    shown = [_shown(table) for table in (runs_table([]), stats_table({}), inbox_table([]))]

    assert ["Runs, newest first", "Stats", "Waiting for a human"] == [
        text.splitlines()[0].strip() for text in shown
    ]


def test_the_inbox_of_a_run_that_says_little() -> None:
    """A pause without assignee and deadline is anybody's, and has none."""
    run = a_run(status=RunStatus.PAUSED, pause=PauseRequest(reason="go on?"))

    assert ["workflow-1", "run-1", "go", "on?", "anybody", "none"] == _shown(inbox_table([run])).splitlines()[
        -2
    ].split()


def test_the_inbox_of_a_run_that_says_everything() -> None:
    """A pause's assignee and deadline are shown."""
    deadline = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
    pause = PauseRequest(reason="pay?", assignee="mei@example.com", deadline=deadline)

    shown = _shown(inbox_table([a_run(status=RunStatus.PAUSED, pause=pause)]))

    assert "mei@example.com" in shown
    assert "03-04 12:30:00.000" in shown


async def test_a_history_with_an_anomaly() -> None:
    """A step that breaks the state machine is noted beside it."""
    history = await _history_of(a_run(), a_run(status=RunStatus.RUNNING))

    shown = _shown(history_table("run-1", history)).splitlines()

    assert [line for line in shown if "breaks the state machine" in line] == [
        line for line in shown if "running" in line
    ]


def test_only_ended_runs_took_time() -> None:
    """A run that goes on shows no duration."""
    ended, running = _shown(runs_table([a_run(), a_run(id="run-2", status=RunStatus.RUNNING)])).splitlines()[
        -3:-1
    ]

    assert "1.50 s" in ended
    assert "ms" not in running


@pytest.mark.parametrize("status", RunStatus)
def test_every_status_has_a_style(status: RunStatus) -> None:
    """Every status is shown by its word, in a colour of its own."""
    text = status_text(status)

    assert (status.value, STYLES[status]) == (text.plain, text.style)


def test_moments_are_cut_to_the_millisecond() -> None:
    """A moment is shown from the month to the millisecond."""
    assert "2026-03-04 05:06:07.089" == moment(datetime(2026, 3, 4, 5, 6, 7, 89_999, tzinfo=UTC))


def test_lines_stay_lines() -> None:
    """Text of several lines is shown as such."""
    assert "a\nb" == literal("a\nb").plain
