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

from .repository import REPOSITORY, codes, documents, fenced, one_line, promises, read, section, table

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_MACHINE = re.compile(r"(?<![\w./~-])/(?:home|root|work|Users)/[\w.]")
"""A path that only one machine has."""


def _guarantees() -> list[str]:
    """Return the README's guarantees; a bullet may go on in indented lines."""
    bullets: list[str] = []
    for line in section(read("README.md"), "## Guarantees").splitlines():
        if line.startswith("- "):
            bullets.append(line[2:])
        elif line.startswith("  ") and bullets:
            bullets[-1] += line
    return [one_line(bullet) for bullet in bullets]


def _anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.process
def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    """The README's example runs in a bare environment and prints what became of its runs."""
    leading = ("RUN_LOG_", "GOOGLE_", "FIRESTORE_", "PUBSUB_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(leading)}

    ended = subprocess.run(  # noqa: S603 - our own interpreter on our own README
        [sys.executable, "-W", "error", "-c", fenced(read("README.md"), "python")],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    printed = "success {'lines': 128} None\n{'total': 1, 'successful': 1} 1\n"
    assert (0, "", printed) == (ended.returncode, ended.stderr, ended.stdout)


def test_the_example_is_as_long_as_it_says() -> None:
    """The README's twenty lines are twenty, blank ones and imports apart."""
    lines = [line for line in fenced(read("README.md"), "python").splitlines() if line.strip()]

    assert 20 >= len(lines)


def test_the_back_ends_are_those_there_are() -> None:
    """The README lists every registered back end, and how many runs the embedded one keeps."""
    rows = table(read("README.md"), "`RUN_LOG_BACKEND`")

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


def test_guarantees_are_promises_of_tests() -> None:
    """Each guarantee of the README is the docstring of a test."""
    guarantees = _guarantees()
    promised = set(promises().values())

    assert [] == [guarantee for guarantee in guarantees if guarantee not in promised]
    assert guarantees, "no guarantee is listed"


def test_guarantees_say_which_test_holds_them() -> None:
    """The guarantees' document lists each one of the README with tests that promise exactly that."""
    rows = [(one_line(row[0]), row[1].strip("`")) for row in table(read("docs/guarantees.md"), "guarantee")]
    known = promises()

    assert set(_guarantees()) == {guarantee for guarantee, _ in rows}
    assert [] == [(guarantee, test) for guarantee, test in rows if known.get(test) != guarantee]


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
