from __future__ import annotations

import ast
import builtins
import re
from pathlib import Path

import pytest

import run_log.core
from run_log.core import (
    DeadLetterReason,
    EventDecodeError,
    InvalidArgumentError,
    NotPausedError,
    RunLogError,
    RunNotFoundError,
    UnreadableRunError,
    errors,
)

REPOSITORY = Path(__file__).resolve().parents[3]
CLASSES = {name: value for name, value in vars(errors).items() if isinstance(value, type)}


def _drawn() -> tuple[dict[str, str], dict[str, str]]:
    """Return each drawn class's drawn parent, and which built-in error it is drawn as too."""
    parents: dict[str, str] = {}
    also: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        drawn = re.fullmatch(r" {4}((?:│   |    )*(?:[├└]── )?)([A-Z]\w+Error)\b(.*)", line)
        if drawn is None:
            continue
        depth, name = len(drawn[1]) // 4, drawn[2]
        path[depth:] = [name]
        parents[name] = path[depth - 1] if depth else "Exception"
        if built_in := re.search(r"also a (\w+)", drawn[3]):
            also[name] = built_in[1]
    return parents, also


def _errors_of(source: Path) -> list[str]:
    """Return the names of the public error classes that a source file defines, by what they derive from."""
    known = {*CLASSES, *(name for name in vars(builtins) if name.endswith(("Error", "Exception", "Exit")))}
    found: list[str] = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            if bases & known or any(base.endswith(("Error", "Exception")) for base in bases):
                known.add(node.name)
                found.append(node.name)
    return found


def test_the_drawn_tree_is_the_real_one() -> None:
    """The tree in the module's docstring is the tree of its classes, all of them."""
    parents, also = _drawn()

    assert parents == {name: cls.__bases__[0].__name__ for name, cls in CLASSES.items()}
    assert also == {name: cls.__bases__[1].__name__ for name, cls in CLASSES.items() if cls.__bases__[1:]}


def test_no_error_is_defined_elsewhere() -> None:
    """No other module defines an error that a caller could meet; control flow has an underscore."""
    elsewhere = {
        str(source.relative_to(REPOSITORY)): public
        for package in ("shared", "producer", "projector", "console")
        for source in (REPOSITORY / package).rglob("*.py")
        if source.name != "errors.py"
        and (public := [name for name in _errors_of(source) if not name.startswith("_")])
    }

    assert {} == elsewhere


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_public_and_says_what_it_means(name: str) -> None:
    """Every error is exported by the package, descends from the root, and has a docstring."""
    assert name in run_log.core.__all__
    assert issubclass(CLASSES[name], RunLogError)
    assert CLASSES[name].__doc__


def test_a_callers_mistake_is_a_value_error() -> None:
    """Callers that know nothing of us catch `ValueError`; a missing run is one, and is not "not paused"."""
    assert issubclass(InvalidArgumentError, ValueError)
    assert issubclass(RunNotFoundError, InvalidArgumentError)
    assert not issubclass(RunNotFoundError, NotPausedError)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UnreadableRunError("w1", "r1", "no status"), r"'r1' of workflow 'w1'.*no status.*repair or delete"),
        (RunNotFoundError("w1", "r1"), "no run 'r1' of workflow 'w1'"),
    ],
    ids=["unreadable", "not found"],
)
def test_an_error_of_a_run_names_it(error: UnreadableRunError | RunNotFoundError, says: str) -> None:
    """The error carries both ids, and its message says them."""
    assert (error.workflow_id, error.run_id) == ("w1", "r1")
    assert re.search(says, str(error))


def test_a_decode_error_carries_its_reason() -> None:
    """The reason is for machines: one of the dead letters' reasons."""
    assert EventDecodeError("what", reason="undecodable").reason == DeadLetterReason.UNDECODABLE
