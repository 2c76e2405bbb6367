"""The repository's own files, as its documents and sources are read by tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[3]
SOURCES: Final = ("producer", "projector", "shared", "console")
_CODE: Final = re.compile(r"`([^`]+)`")
_FENCED: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def read(path: str) -> str:
    """Return the text of a file of the repository."""
    return (REPOSITORY / path).read_text(encoding="utf-8")


def documents() -> list[Path]:
    """Return every Markdown file of the repository."""
    return sorted(
        path
        for path in REPOSITORY.rglob("*.md")
        if not any(
            part.startswith(".") or part == "node_modules" for part in path.relative_to(REPOSITORY).parts
        )
    )


def section(text: str, heading: str) -> str:
    """Return what stands under *heading*, up to the next heading of its level or above."""
    level = heading.count("#")
    _, _, after = text.partition(f"\n{heading}\n")
    assert after, f"no heading {heading!r}"
    return re.split(rf"^#{{1,{level}}} ", after, maxsplit=1, flags=re.MULTILINE)[0]


def fenced(text: str, language: str) -> str:
    """Return the first fenced block of *language*."""
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"no {language} block"
    return found[1]


def table(text: str, first_column: str) -> list[list[str]]:
    """Return the cells of each row of the table whose first column is headed *first_column*."""
    lines = iter(text.splitlines())
    for line in lines:
        if _cells(line)[:1] == [first_column]:
            next(lines)  # the dashes
            break
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(_cells(line))
    assert rows, f"no table of {first_column!r}"
    return rows


def codes(text: str) -> list[str]:
    """Return what stands in backticks."""
    return _CODE.findall(_FENCED.sub("", text))


def source_strings(*called: str) -> set[str]:
    """Return the literal first arguments of every call, in the packages, of a function named in *called*."""
    return {
        call.args[0].value
        for source in SOURCES
        for path in (REPOSITORY / source).rglob("*.py")
        for call in _calls(ast.parse(path.read_text(encoding="utf-8")))
        if _name(call.func) in called
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


def every_test() -> frozenset[str]:
    """Return every test of the repository, as ``path::function``."""
    return frozenset(
        f"{path.relative_to(REPOSITORY).as_posix()}::{node.name}"
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def one_line(text: str) -> str:
    """Return *text* with every stretch of white space as one blank."""
    return " ".join(text.split())


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
