"""The commands that pages show are commands that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from run_log import dashboard
from run_log.console.app import app
from run_log.core import DeadLetterReason, utc_now
from run_log.dashboard.pages.operations import LettersOfReason
from run_log.stores.notices import DeadLetterNotice

PAGES: Final = Path(dashboard.__file__).parent
# As Jinja joins them: a part that a page fills in stands for a duration.
SHOWN: Final = sorted(
    {
        re.sub(r'" ~ .*? ~ "', "1h", found)
        for path in (PAGES / "templates").glob("*.html")
        for found in re.findall(r'(?:<code>|command\(")(run-log .+?)(?:</code>|"\))', path.read_text())
    }
)


def test_pages_show_commands() -> None:
    """Pages show what to run where there is nothing, and where something has to be done."""
    assert len(SHOWN) > 5


def _of(reason: str) -> str:
    newest = DeadLetterNotice(
        at=utc_now(), reason=reason, error="", message_id="", workflow_id=None, run_id=None
    )
    return LettersOfReason(reason=reason, count=1, newest=newest).command


@pytest.mark.parametrize("shown", [*SHOWN, *(_of(reason.value) for reason in DeadLetterReason)])
def test_a_command_is_one(shown: str) -> None:
    """What a page shows to copy is taken by the command line, its options included."""
    command: Any = typer.main.get_command(app)
    _, *words = shown.split()
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]

    command.make_context(command.name, words)
