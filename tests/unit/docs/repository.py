"""The repository's own files, as its documents and sources are read by tests."""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[3]
SOURCES: Final = ("producer", "projector", "dashboard", "shared", "console")


def read(path: str) -> str:
    """Return the text of a file of the repository."""
    return (REPOSITORY / path).read_text(encoding="utf-8")


def documents() -> list[Path]:
    """Return every Markdown file of the repository."""
    found: list[Path] = []
    for folder, folders, files in os.walk(REPOSITORY):
        # Environments and caches hold many times as many files as the repository.
        folders[:] = [name for name in folders if not name.startswith(".") and name != "node_modules"]
        found += [Path(folder, name) for name in files if name.endswith(".md") and not name.startswith(".")]
    return sorted(found)


def section(text: str, heading: str) -> str:
    """Return what stands under *heading*, up to the next heading of its level or above."""
    _, _, after = text.partition(f"\n{heading}\n")
    assert after, f"no heading {heading!r}"
    return re.split(rf"^#{{1,{heading.count('#')}}} ", after, maxsplit=1, flags=re.MULTILINE)[0]


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of *language*."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"no {language} block"
    return found


def fenced(text: str, language: str) -> str:
    """Return the first fenced block of *language*."""
    return blocks(text, language)[0]


async def run_example(block: str, names: dict[str, Any]) -> None:
    """Run a block of Python, which may await, as it stands. It sees and sets *names*."""
    code: CodeType = compile(block, "document.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    body: Callable[[], Awaitable[None] | None] = FunctionType(code, names)
    done = body()
    if inspect.isawaitable(done):
        await done


def table(text: str, first_column: str) -> list[list[str]]:
    """Return the cells of each row of the tables whose first column is headed *first_column*."""
    found = [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in rows.splitlines()]
        for rows in re.findall(r"(?:^\|.*\n)+", f"{text}\n", re.MULTILINE)
    ]
    rows = [row for table in found if table[0][0] == first_column for row in table[2:]]
    assert rows, f"no table of {first_column!r}"
    return rows


def codes(text: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def source_strings(*called: str) -> set[str]:
    """Return the literal first arguments of every call, in the packages, of a function named in *called*."""
    call = re.compile(rf'\b(?:{"|".join(called)})\(\s*(?:#.*\s*)?"(\w[\w.]*)"')
    return {
        string
        for source in SOURCES
        for path in (REPOSITORY / source).rglob("*.py")
        for string in call.findall(path.read_text(encoding="utf-8"))
    }


def every_test() -> frozenset[str]:
    """Return every test of the repository, as ``path::function``."""
    definition = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
    return frozenset(
        f"{path.relative_to(REPOSITORY).as_posix()}::{name}"
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for name in definition.findall(path.read_text(encoding="utf-8"))
    )


def one_line(text: str) -> str:
    """Return *text* with every stretch of white space as one blank."""
    return " ".join(text.split())
