"""The HTTP API and the pages of a run log, as an ASGI app that stands alone or in a platform's own."""

from .app import create_app

__all__ = ["create_app"]
