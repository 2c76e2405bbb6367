from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from run_log.stores.memory._service import MAX_RUNS

from .repository import REPOSITORY, codes, documents, every_test, fenced, one_line, read, section, table

README = read("README.md")
GUARANTEES = [(row[0], codes(row[1])[0]) for row in table(read("docs/guarantees.md"), "guarantee")]

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_MACHINE = re.compile(r"(?<![\w./~-])/(?:home|root|work|Users)/[\w.]")
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


def test_the_readme_is_short() -> None:
    """The README has at most 120 lines."""
    assert 120 >= len(README.splitlines())


def test_the_back_ends_are_those_there_are() -> None:
    """The README lists every registered back end, and how many runs the embedded one keeps."""
    rows = table(README, "`RUN_LOG_BACKEND`")

    registered = {entry.name for entry in entry_points(group="run_log.backends")}
    assert registered == {codes(row[0])[0] for row in rows}
    assert f"the newest {MAX_RUNS} runs" in rows[0][1]


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link of a document leads to a file, and to a heading where it names one."""
    links = [link for link in _LINK.findall(document.read_text(encoding="utf-8")) if "://" not in link]

    broken: list[str] = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert [] == broken


def test_the_readme_has_the_ten_most_important_guarantees() -> None:
    """The README lists ten guarantees, each in the words of the guarantees' document."""
    items = re.findall(r"^- (.+(?:\n  .+)*)", section(README, "## Guarantees"), re.MULTILINE)

    assert 10 == len(set(items)) == len(items)
    assert {one_line(item) for item in items} <= {guarantee for guarantee, _ in GUARANTEES}


def test_each_guarantee_names_its_test() -> None:
    """Each row of the guarantees' document names a test that exists. No test and no sentence comes twice."""
    times = Counter(cell for row in GUARANTEES for cell in row)

    assert {test for _, test in GUARANTEES} <= every_test()
    assert [] == [cell for cell, count in times.items() if count > 1]


@pytest.mark.process
def test_no_path_of_one_machine() -> None:
    """No file of the repository names a path that only the machine it was written on has."""
    git = shutil.which("git")
    if git is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to the repository")
    listed = subprocess.run(  # noqa: S603 - only lists files
        [git, "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60
    )
    tracked = [REPOSITORY / name for name in listed.stdout.split("\0") if name and name != "uv.lock"]

    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for path in tracked
        if path.is_file()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), start=1)
        if _MACHINE.search(line)
    ]

    assert [] == found
