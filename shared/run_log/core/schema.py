"""The JSON Schema of an event, for readers who have no Python."""

from __future__ import annotations

from importlib.resources import files

from .wire import SCHEMA_VERSION


def event_schema_text() -> str:
    """Return the JSON Schema (2020-12) of an event's body in this version.

    It requires the fields that a reader needs, and allows the fields that a newer writer adds.
    """
    # Not made here: its descriptions are docstrings, which `python -OO` removes.
    name = f"run-state-{SCHEMA_VERSION}.json"
    return (files("run_log.core") / "schemas" / name).read_text(encoding="utf-8")
