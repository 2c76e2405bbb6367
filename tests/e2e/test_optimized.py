"""Python without docstrings and asserts, as images that are built small run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from run_log.core.schema import event_schema_text

from .installing import clean_environment

pytestmark = pytest.mark.process

PROGRAM = """
import sys
from run_log.console import main

for line in sys.stdin:
    sys.argv = ["run-log", *line.split()]
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    print("exit", *sys.argv[1:3], code or 0, flush=True)
"""

COMMANDS = """\
emit w --run r --status running
emit w --run r --result {"n":1}
runs list w
runs count w
runs show w r
runs history w r
runs stats w --window 7d
runs pending
workflows
verify
runs show w nobody
projector pull --help
schema export --into schema.json
demo
"""


def test_everything_works_without_docstrings(tmp_path: Path) -> None:
    """Under ``python -OO`` commands do what they do without it, and end as they do without it."""
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-OO", "-c", PROGRAM],
        input=COMMANDS,
        cwd=tmp_path,
        env={**clean_environment(), "RUN_LOG_BACKEND": "sqlite"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    ended = [line.split() for line in done.stdout.splitlines() if line.startswith("exit ")]
    expected = [[*line.split()[:2], "0"] for line in COMMANDS.splitlines()]
    expected[-4][-1] = "3"
    expected[-1] = ["demo", "0"]
    assert expected == [words[1:] for words in ended], done.stderr
    assert event_schema_text() == (tmp_path / "schema.json").read_text()
    assert "Stats equal a recount of the runs." in done.stdout
