"""The packages that uv.lock names."""

from __future__ import annotations

import functools
import tomllib
from typing import Any

from .dockerfile import REPOSITORY


@functools.cache
def packages() -> list[dict[str, Any]]:
    """Return them. Some are there twice: Beam wants older ones."""
    found: list[dict[str, Any]] = tomllib.loads((REPOSITORY / "uv.lock").read_text(encoding="utf-8"))[
        "package"
    ]
    return found
