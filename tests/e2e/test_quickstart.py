"""The quick start, as somebody follows it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.unit.docs.repository import fenced, read, section

from .command_line import called
from .installing import clean_environment

pytestmark = pytest.mark.process

QUICKSTART = read("docs/quickstart.md")
EMULATORS = "## The same on Google's emulators"
MACHINE = ("## Record a workflow", "## Look at it", "## Watch, and answer")


def _blocks(*headings: str) -> str:
    """Return the commands under *headings*, in order. What stands as ``bash`` goes on, or needs a network."""
    blocks = [
        block
        for heading in headings
        for block in re.findall(r"^```sh\n(.*?)^```$", section(QUICKSTART, heading), re.MULTILINE | re.DOTALL)
    ]
    assert blocks
    return "".join(blocks)


def _followed(commands: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Return what *commands* print, run one after the other in *folder*; the first that fails ends it."""
    (folder / "report.py").write_text(fenced(QUICKSTART, "python"), encoding="utf-8")
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("bash is not on PATH")

    done = subprocess.run(  # noqa: S603 - our own document
        [shell, "-eu", "-c", commands],
        cwd=folder,
        env={**environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )

    assert 0 == done.returncode, done.stderr
    return done.stdout


def _words(text: str) -> list[str]:
    """Return the words of *text* without batches, times, durations and what a table is drawn with."""
    text = re.sub(r"-[0-9a-f]{6}\b", "", text)
    return [word for word in re.findall(r"[^\W\d_]\w*", text) if word not in {"s", "ms"}]


def test_on_one_machine(tmp_path: Path) -> None:
    """The quick start's commands work one after another as they stand, and show what the page says."""
    printed = _followed(_blocks(*MACHINE), tmp_path, {**clean_environment(), "COLUMNS": "80"})

    assert " ".join(_words(fenced(QUICKSTART, "text"))) in " ".join(_words(printed))
    assert (tmp_path / "run-log.sqlite3").is_file()
    for shown in ("FileNotFoundError", "june.csv", "4,200 EUR for a machine: pay?", "mei@example.com"):
        assert shown in printed
    assert re.search(r"success +july +reports", printed)
    assert "answered by mei@example.com" in printed


def test_the_workflow_runs_again(tmp_path: Path) -> None:
    """Run again, as the page invites to, the workflow adds runs that are as right as the first ones."""
    sqlite = {"RUN_LOG_BACKEND": "sqlite"}

    batches = _followed("python report.py; python report.py", tmp_path, {**clean_environment(), **sqlite})
    histories = [
        called("runs", "history", "reports", f"may-{batch}", folder=tmp_path, environment=sqlite)
        for batch in batches.split()
    ]
    workflows = called("workflows", "-o", "jsonl", folder=tmp_path, environment=sqlite)

    assert [0, 0] == [history.code for history in histories]
    assert not any("breaks" in history.out for history in histories)
    assert {"reports": (4, 2), "expenses": (2, 0)} == {
        one["workflow_id"]: (one["total"], one["by_status"].get("success", 0))
        for one in map(json.loads, workflows.out.splitlines())
    }


# The page's projector waits for 25 s, as a user's does.
@pytest.mark.emulator
def test_on_the_emulators(tmp_path: Path, emulator_environment: Mapping[str, str]) -> None:
    """With the emulators' variables set, the same file is published, projected and listed."""
    environment = {**clean_environment(), **emulator_environment}

    printed = _followed(_blocks(EMULATORS), tmp_path, environment)

    assert {"may", "june", "success", "failed"} <= set(_words(printed))


def test_the_page_says_the_commands_that_install() -> None:
    """What the page installs is an extra there is, and what it makes is a target of the Makefile."""
    extras = re.search(r'pip install "\.\[([\w,]+)\]"', QUICKSTART)
    assert extras
    declared = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]

    assert set(extras[1].split(",")) <= set(declared)
    targets = set(re.findall(r"\bmake (\w+)\b", QUICKSTART))
    assert {"demo", "emulators"} <= targets & set(re.findall(r"^(\w+):", read("Makefile"), re.MULTILINE))
