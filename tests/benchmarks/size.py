"""How much there is to read: ``python -m tests.benchmarks.size [FOLDER]``, of this checkout or of another."""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SOURCES: Final = ("shared", "producer", "projector", "console")
PACKAGES: Final = ("core", "stores", "pubsub", "testing", "producer", "projector", "console")


@dataclass(slots=True)
class Size:
    """What some files come to."""

    files: int = 0
    lines: int = 0
    comments: int = 0
    """Lines with nothing but a comment."""
    references: int = 0
    """Docstrings that only name another."""
    functions: list[int] = field(default_factory=list[int])
    """Lines of each function, its docstring left out."""


def added(sizes: Iterable[Size]) -> Size:
    """Return what several come to."""
    total = Size()
    for size in sizes:
        total.files += size.files
        total.lines += size.lines
        total.comments += size.comments
        total.references += size.references
        total.functions += size.functions
    return total


def measured(path: Path) -> Size:
    """Return what one file comes to."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = sum(
        token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip() for token in tokens
    )
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)]
    references = sum(text.startswith("See ") and len(text.splitlines()) == 1 for text in docstrings)
    return Size(1, text.count("\n"), comments, references, list(_functions(tree)))


def _functions(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body:
                yield (node.end_lineno or 0) - body[0].lineno + 1


def _total(folder: Path) -> Size:
    return added(map(measured, sorted(folder.rglob("*.py"))))


def main() -> int:
    """Show the sizes of a checkout."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    write = sys.stdout.write
    sizes: list[Size] = []
    for name in PACKAGES:
        sizes.append(added(_total(root / source / "run_log" / name) for source in SOURCES))
        write(f"{name:10} {sizes[-1].files:4} files {sizes[-1].lines:7,} lines\n")
    total = added(sizes)
    write(f"{'sources':10} {total.files:4} files {total.lines:7,} lines\n")
    tests = _total(root / "tests")
    write(f"{'tests':10} {tests.files:4} files {tests.lines:7,} lines\n")
    median, ninetieth = statistics.median(total.functions), statistics.quantiles(total.functions, n=10)[-1]
    write(f"functions: {median:.0f} lines at the median, {ninetieth:.0f} at the 90th percentile\n")
    share = total.comments / total.lines
    write(f"comments: {share:.1%} of the lines; {total.references} docstrings only name another\n")
    documents = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    words = sum(len(path.read_text(encoding="utf-8").split()) for path in documents)
    write(f"documents: {len(documents)} with {words:,} words\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
