"""The HTTP API and the pages of a run log, as an ASGI app that stands alone or in a platform's own."""

from .access import Authenticate, Caller
from .app import create_app

__all__ = ["Authenticate", "Caller", "create_app"]
