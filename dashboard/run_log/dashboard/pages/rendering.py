"""Makes the pages: templates, and what every one of them can show."""

from __future__ import annotations

from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from run_log.dashboard.paths import segment_of

_environment: Final = Environment(
    loader=PackageLoader("run_log.dashboard"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["segment"] = segment_of


def page(request: Request, template: str, *, status: int = 200, **shown: Any) -> HTMLResponse:
    """Return the page that *template* makes of what is *shown*; links in it begin with ``root``."""
    root = request.scope.get("root_path", "").rstrip("/")
    text = _environment.get_template(template).render(root=root, request=request, **shown)
    return HTMLResponse(text, status_code=status)
