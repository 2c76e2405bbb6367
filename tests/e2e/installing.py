"""What tests that install something share."""

from __future__ import annotations

import os
from collections.abc import Mapping

UNREACHABLE = (
    "Failed to fetch",
    "error sending request",
    "network was disabled",
    "No matching distribution found",
)
"""What uv and pip say where they reach no package index."""


def clean_environment() -> dict[str, str]:
    """Return this process's variables without those that lead to a Python, a cloud or a setting."""
    leading = ("PYTHON", "RUN_LOG_", "GOOGLE_", "GCLOUD_", "FIRESTORE_", "PUBSUB_", "VIRTUAL_ENV", "COVERAGE")
    kept = "PYTHONWARNINGS"  # see tests/conftest.py
    return {name: value for name, value in os.environ.items() if name == kept or not name.startswith(leading)}


def is_required(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a missing package index fails a test instead of skipping it."""
    return any(environ.get(name, "").lower() in {"1", "true"} for name in ("CI", "RUN_LOG_REQUIRE_EMULATORS"))
