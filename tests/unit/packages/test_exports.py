from __future__ import annotations

import importlib
from types import FunctionType, ModuleType

import pytest

PACKAGES = [
    "run_log.adapters",
    "run_log.adapters.openlineage",
    "run_log.console",
    "run_log.core",
    "run_log.dashboard",
    "run_log.producer",
    "run_log.projector",
    "run_log.projector.archive",
    "run_log.projector.imports",
    "run_log.projector.rebuild",
    "run_log.pubsub",
    "run_log.stores",
    "run_log.stores.audit",
    "run_log.stores.firestore",
    "run_log.stores.sqlite",
    "run_log.testing",
]
HELPERS = {"TYPE_CHECKING", "Any", "annotations"}
LAZY = {"run_log.stores": {"FirestoreRunLogService", "SQLiteRunLogService"}}


def _public(package: ModuleType) -> set[str]:
    """Return the names without underscore that *package* holds, without its submodules."""
    return {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name not in HELPERS
    }


def _rank(name: str) -> tuple[int, str]:
    """Return the place of *name* in the order that ruff keeps: constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", PACKAGES)
def test_exported_names_are_sorted_and_real(name: str) -> None:
    """`__all__` is sorted, without repeats, and is exactly what can be imported."""
    package = importlib.import_module(name)

    assert sorted(set(package.__all__), key=_rank) == package.__all__
    assert set(package.__all__) == _public(package) | LAZY.get(name, set())
    assert all(hasattr(package, export) for export in package.__all__)


@pytest.mark.parametrize("name", PACKAGES)
def test_everything_exported_is_documented(name: str) -> None:
    """Every public class and function has a docstring of its own."""
    package = importlib.import_module(name)
    exported = [getattr(package, export) for export in package.__all__]

    assert [value for value in exported if isinstance(value, type | FunctionType) and not value.__doc__] == []
