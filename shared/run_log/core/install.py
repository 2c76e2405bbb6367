"""The command that installs a missing extra. No index has run-log, so it names where run-log came from."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

DISTRIBUTION: Final = "run-log"


def how_to_install(extras: str, origin: Mapping[str, Any] | None = None) -> str:
    """Return the command that adds *extras*, such as ``producer,stores``, for the end of an error message."""
    # What the installer recorded: https://packaging.python.org/en/latest/specifications/direct-url/
    origin = noted_origin(DISTRIBUTION) if origin is None else origin
    url = str(origin.get("url", ""))
    local = Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None
    if local is None and url:
        return f"pip install {shlex.quote(f'{DISTRIBUTION}[{extras}] @ {_requirement_url(origin, url)}')}"
    if local is not None and local.is_file():
        return f"pip install {shlex.quote(f'{local}[{extras}]')}"
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    command = f"pip install {editable}'.[{extras}]'"
    if local is not None and local.is_dir():
        return f"cd {shlex.quote(str(local))} && {command}"
    return f"in a checkout of {DISTRIBUTION}: {command}"


def noted_origin(name: str) -> Mapping[str, Any]:
    """Return where the distribution *name* was installed from; an empty mapping if nothing recorded it."""
    try:
        noted = distribution(name).read_text("direct_url.json")
    except PackageNotFoundError:
        noted = None
    found: Mapping[str, Any] = json.loads(noted) if noted else {}
    return found


def _requirement_url(origin: Mapping[str, Any], url: str) -> str:
    version_control: Mapping[str, str] = origin.get("vcs_info", {})
    if not version_control:
        return url
    return f"{version_control['vcs']}+{url}@{version_control['commit_id']}"
