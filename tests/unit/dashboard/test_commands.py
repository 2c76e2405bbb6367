"""The commands that pages show are commands that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from run_log import dashboard
from run_log.console.app import app

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


@pytest.mark.parametrize("shown", SHOWN)
def test_a_command_is_one(shown: str) -> None:
    """What a page shows to copy is taken by the command line, its options included."""
    command: Any = typer.main.get_command(app)
    _, *words = shown.split()
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]

    command.make_context(command.name, words)
