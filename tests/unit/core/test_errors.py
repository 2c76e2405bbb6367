from __future__ import annotations

import importlib
import re

import pytest

import run_log.core
from run_log.core import (
    DeadLetterReason,
    EventDecodeError,
    InvalidArgumentError,
    RunLogError,
    UnreadableRunError,
)

_errors = importlib.import_module("run_log.core._errors")


def _drawn() -> tuple[dict[str, str], set[str]]:
    """Return each drawn class's drawn parent, and the classes drawn as `ValueError` too."""
    parents: dict[str, str] = {}
    value_errors = set[str]()
    path: list[str] = []
    for line in (_errors.__doc__ or "").splitlines():
        drawn = re.fullmatch(r" {4}((?:│   |    )*(?:[├└]── )?)([A-Z]\w+Error)\b(.*)", line)
        if drawn is None:
            continue
        depth, name = len(drawn[1]) // 4, drawn[2]
        path[depth:] = [name]
        parents[name] = path[depth - 1] if depth else "Exception"
        if "also a ValueError" in drawn[3]:
            value_errors.add(name)
    return parents, value_errors


def test_the_drawn_tree_is_the_real_one() -> None:
    """The tree in the module's docstring is the tree of its classes, all of them."""
    parents, value_errors = _drawn()
    classes = {name: getattr(_errors, name) for name in _errors.__all__}

    assert parents == {name: cls.__bases__[0].__name__ for name, cls in classes.items()}
    assert value_errors == {name for name, cls in classes.items() if ValueError in cls.__bases__}


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
