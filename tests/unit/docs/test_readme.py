from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from run_log.stores.memory._service import MAX_RUNS

from .repository import REPOSITORY, codes, documents, every_test, fenced, one_line, read, section, table

README = read("README.md")
GUARANTEES = [(row[0], codes(row[1])[0]) for row in table(read("docs/guarantees.md"), "guarantee")]
MACHINE = r"(^|[^[:alnum:]_./~-])/(home|root|work|Users)/[[:alnum:]_.]"
"""A path that only one machine has."""


def _anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.process
def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    """The README's example of at most twenty lines runs in a bare environment and prints its runs."""
    leading = ("RUN_LOG_", "GOOGLE_", "FIRESTORE_", "PUBSUB_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(leading)}
    example = fenced(section(README, "## Twenty lines of code"), "python")

    ended = subprocess.run(  # noqa: S603 - our own interpreter on our own README
        [sys.executable, "-W", "error", "-c", example],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    printed = "success {'lines': 128} None\n{'total': 1, 'successful': 1} 1\n"
    assert (0, "", printed) == (ended.returncode, ended.stderr, ended.stdout)
    assert 20 >= len(example.splitlines())


def test_the_readme() -> None:
    """The README has at most 120 lines, and lists every back end; the embedded one keeps so many runs."""
    assert 120 >= len(README.splitlines())
    rows = table(README, "`RUN_LOG_BACKEND`")
    registered = {entry.name for entry in entry_points(group="run_log.backends")}
    assert registered == {codes(row[0])[0] for row in rows}
    assert f"the newest {MAX_RUNS} runs" in rows[0][1]


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link of a document leads to a file, and to a heading where it names one."""
    for link in re.findall(r"\]\(([^)\s:]+)\)", document.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_guarantees() -> None:
    """Each guarantee names a test of its own that exists. Ten stand in the README word for word."""
    guarantees, tests = zip(*GUARANTEES, strict=True)
    items = re.findall(r"^- (.+(?:\n  .+)*)", section(README, "## Guarantees"), re.MULTILINE)

    assert set(tests) <= every_test()
    assert len(GUARANTEES) == len(set(guarantees)) == len(set(tests))
    assert 10 == len(set(items)) == len(items)
    assert {one_line(item) for item in items} <= set(guarantees)


@pytest.mark.process
def test_no_path_of_one_machine() -> None:
    """No file of the repository names a path that only the machine it was written on has."""
    git = shutil.which("git")
    if git is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to the repository")
    found = subprocess.run(  # noqa: S603 - only reads our own files
        [git, "grep", "-InE", MACHINE, "--", ":!uv.lock"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (1, "", "") == (found.returncode, found.stdout, found.stderr)
