"""Makes the pages: templates, and what every one of them can show."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse

from run_log.dashboard.paths import segment_of

from .texts import as_given, first_line, json_text, moment, since, took, took_ms, visible

_STATIC: Final = Path(__file__).parent.parent / "static"

templates: Final = Environment(
    loader=PackageLoader("run_log.dashboard"),
    autoescape=True,
    # Everything that is shown, whoever wrote it.
    finalize=visible,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_filters: Final[dict[str, Any]] = templates.filters
_filters.update(
    {
        "as_given": as_given,
        "first_line": first_line,
        "json_text": json_text,
        "moment": moment,
        "segment": segment_of,
        "since": since,
        "took": took,
        "took_ms": took_ms,
    }
)


def _static(name: str) -> str:
    # A browser keeps a file for as long as its content is the same.
    return f"{name}?v={hashlib.sha256((_STATIC / name).read_bytes()).hexdigest()[:12]}"


_globals: Final[dict[str, Any]] = templates.globals
_globals.update({"style": _static("style.css"), "script": _static("script.js")})


def root_of(connection: HTTPConnection) -> str:
    """Return what the paths of this app begin with, where it is mounted: no ``/`` at the end."""
    root: str = connection.scope.get("root_path", "")
    return root.rstrip("/")


def page(request: HTTPConnection, template: str, *, status: int = 200, **shown: Any) -> HTMLResponse:
    """Return the page that *template* makes of what is *shown*; links in it begin with ``root``."""
    text = templates.get_template(template).render(root=root_of(request), **shown)
    # A text of a store may have half a surrogate pair, which no encoding has.
    return HTMLResponse(text.encode(errors="replace"), status_code=status)
