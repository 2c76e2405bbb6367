from __future__ import annotations

import re
from importlib import import_module

import pytest

from .repository import codes, read, section, table

REFERENCE = read("docs/reference.md")
PACKAGES = (
    "run_log.core",
    "run_log.stores",
    "run_log.stores.audit",
    "run_log.producer",
    "run_log.projector",
    "run_log.projector.archive",
    "run_log.projector.rebuild",
    "run_log.projector.imports",
    "run_log.projector.beam",
    "run_log.dashboard",
    "run_log.adapters.openlineage",
    "run_log.pubsub",
    "run_log.testing",
)


def test_the_packages() -> None:
    """The page has one section for each public package, and no other."""
    assert list(PACKAGES) == re.findall(r"^## `(.+)`$", REFERENCE, re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_names(package: str) -> None:
    """Each section lists every public name of its package once, with what it is, and no other name."""
    rows = table(section(REFERENCE, f"## `{package}`"), "name")

    assert sorted(import_module(package).__all__) == sorted(codes(name)[0] for name, _ in rows)
    assert all(what for _, what in rows)
