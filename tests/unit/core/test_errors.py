from __future__ import annotations

import ast
import builtins
import importlib
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
)

_errors = importlib.import_module("run_log.core.errors")

REPOSITORY = Path(__file__).resolve().parents[3]


def _drawn() -> tuple[dict[str, str], dict[str, str]]:
    """Return each drawn class's drawn parent, and which built-in error it is drawn as too."""
    parents: dict[str, str] = {}
    also: dict[str, str] = {}
    path: list[str] = []
    for line in (_errors.__doc__ or "").splitlines():
        drawn = re.fullmatch(r" {4}((?:│   |    )*(?:[├└]── )?)([A-Z]\w+Error)\b(.*)", line)
        if drawn is None:
            continue
        depth, name = len(drawn[1]) // 4, drawn[2]
        path[depth:] = [name]
        parents[name] = path[depth - 1] if depth else "Exception"
        if built_in := re.search(r"also a (\w+)", drawn[3]):
            also[name] = built_in[1]
    return parents, also


def _defined(module: object) -> dict[str, type[Exception]]:
    """Return the errors that *module* itself defines."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == _errors.__name__
    }


def _errors_of(source: Path) -> list[str]:
    """Return the names of the public error classes that a source file defines, by what they derive from."""
    known = {*_errors.__all__} | {
        name
        for name, value in vars(builtins).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    found: list[str] = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            if bases & known or any(base.endswith(("Error", "Exception")) for base in bases):
                known.add(node.name)
                found.append(node.name)
    return found


def test_the_drawn_tree_is_the_real_one() -> None:
    """The tree in the module's docstring is the tree of its classes, all of them, and all are exported."""
    parents, also = _drawn()
    classes = _defined(_errors)

    assert sorted(classes) == _errors.__all__
    assert parents == {name: cls.__bases__[0].__name__ for name, cls in classes.items()}
    assert also == {name: cls.__bases__[1].__name__ for name, cls in classes.items() if cls.__bases__[1:]}


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


@pytest.mark.parametrize("name", _errors.__all__)
def test_every_error_is_public_and_says_what_it_means(name: str) -> None:
    """Every error is exported by the package, descends from the root, and has a docstring."""
    cls = getattr(run_log.core, name)

    assert issubclass(cls, RunLogError)
    assert cls.__doc__


def test_a_callers_mistake_is_a_value_error() -> None:
    """Callers that know nothing of us catch `ValueError`."""
    with pytest.raises(ValueError, match="limit"):
        raise InvalidArgumentError("limit is 0")


def test_an_unreadable_run_is_named() -> None:
    """The error carries both ids and its message says what to do."""
    error = UnreadableRunError("w1", "r1", "no status")

    assert (error.workflow_id, error.run_id) == ("w1", "r1")
    assert re.search(r"'r1' of workflow 'w1'.*no status.*repair or delete", str(error))


def test_a_decode_error_carries_its_reason() -> None:
    """The reason is for machines: one of the dead letters' reasons."""
    assert EventDecodeError("what", reason="undecodable").reason == DeadLetterReason.UNDECODABLE


def test_a_run_that_is_not_there_is_named() -> None:
    """The error carries both ids; it is a mistake of the caller, and not "not paused"."""
    error = RunNotFoundError("w1", "r1")

    assert ("w1", "r1") == (error.workflow_id, error.run_id)
    assert "no run 'r1' of workflow 'w1'" in str(error)
    assert (True, False) == (isinstance(error, InvalidArgumentError), isinstance(error, NotPausedError))
