"""Bodies of answers: JSON of anything that a run may hold, and what a status is called."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse
from typing_extensions import override


def status_name(status: int) -> str:
    """Return what HTTP calls a *status*, which may be one that a platform has made up."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def json_bytes(value: object) -> bytes:
    """Return *value*, which `to_json` made, as compact ASCII JSON."""
    # ASCII, for a payload may have lone surrogates, which UTF-8 does not.
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


class JSONAnswer(JSONResponse):
    """An answer in the public JSON form. FastAPI's own cannot encode every payload."""

    @override
    def render(self, content: Any) -> bytes:
        return json_bytes(content)
