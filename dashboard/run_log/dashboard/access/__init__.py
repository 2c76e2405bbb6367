"""Who may use the dashboard: what tells it of a request, and what strangers cannot do."""

from .callers import Authenticate, Caller
from .guard import Guard
from .modes import authentication
from .streams import OpenStreams

__all__ = ["Authenticate", "Caller", "Guard", "OpenStreams", "authentication"]
