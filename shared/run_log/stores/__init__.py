"""The read side, and the write port the projector uses: one contract, one module for each store."""

from typing import TYPE_CHECKING, Any

from ._factory import create_run_log_service, get_run_log_service, reset_run_log_service
from ._service import ProjectionStore, RunLogService
from .memory import InMemoryRunLogService

if TYPE_CHECKING:
    from .firestore import FirestoreRunLogService

__all__ = [
    "FirestoreRunLogService",
    "InMemoryRunLogService",
    "ProjectionStore",
    "RunLogService",
    "create_run_log_service",
    "get_run_log_service",
    "reset_run_log_service",
]


def __getattr__(name: str) -> Any:
    """Import Firestore's module when it is asked for: the rest works without its client library."""
    if name != "FirestoreRunLogService":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .firestore import FirestoreRunLogService  # noqa: PLC0415 - see above
    except ImportError as error:
        raise ImportError(f"FirestoreRunLogService: {error}; pip install 'run-log[stores]'") from error
    return FirestoreRunLogService
