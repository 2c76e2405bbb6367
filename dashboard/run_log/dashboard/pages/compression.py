"""Pages, style and script, compressed on the way: a page of 50 runs is a seventh as long then."""

from __future__ import annotations

from typing import Final

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from run_log.dashboard.errors import is_of_api

# Higher ones take longer than the few bytes are worth that they save of a page.
_LEVEL: Final = 5
_SMALLEST_BYTES: Final = 1_000


class CompressedPages:
    """ASGI middleware: what is for people is compressed where the browser takes that.

    What the API answers is not: its entity tags are of the bytes as they are.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._plain = app
        self._compressed = GZipMiddleware(app, minimum_size=_SMALLEST_BYTES, compresslevel=_LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        plain = scope["type"] != "http" or is_of_api(scope)
        await (self._plain if plain else self._compressed)(scope, receive, send)
