"""The read side, and the write port the projector uses: one contract, one module for each store."""

from typing import TYPE_CHECKING, Any

from .factory import create_run_log_service, get_run_log_service, reset_run_log_service
from .failures import FailureGroup
from .inbox import PendingRun
from .listings import page_json
from .memory import InMemoryRunLogService
from .notices import DeadLetterNotice, Notices, VerifyNotice
from .ports import ProjectionStore
from .reader import RunLogReader, RunRecord
from .service import RunLog, RunLogService
from .stale import StaleRun
from .summaries import MAX_WINDOW, TimeBucket, WorkflowStats, WorkflowSummary
from .watch import RunUpdate, RunWatch

if TYPE_CHECKING:
    from .firestore import FirestoreRunLogService
    from .sqlite import SQLiteRunLogService

__all__ = [
    "MAX_WINDOW",
    "DeadLetterNotice",
    "FailureGroup",
    "FirestoreRunLogService",
    "InMemoryRunLogService",
    "Notices",
    "PendingRun",
    "ProjectionStore",
    "RunLog",
    "RunLogReader",
    "RunLogService",
    "RunRecord",
    "RunUpdate",
    "RunWatch",
    "SQLiteRunLogService",
    "StaleRun",
    "TimeBucket",
    "VerifyNotice",
    "WorkflowStats",
    "WorkflowSummary",
    "create_run_log_service",
    "get_run_log_service",
    "page_json",
    "reset_run_log_service",
]


def __getattr__(name: str) -> Any:
    """Import a store's module when it is asked for: the rest works without its library."""
    if name == "SQLiteRunLogService":
        from .sqlite import SQLiteRunLogService  # noqa: PLC0415 - see above

        return SQLiteRunLogService
    if name != "FirestoreRunLogService":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .firestore import FirestoreRunLogService  # noqa: PLC0415 - see above
    except ImportError as error:
        from run_log.core.install import how_to_install  # noqa: PLC0415 - only then

        raise ImportError(f"FirestoreRunLogService: {error}; {how_to_install('stores')}") from error
    return FirestoreRunLogService
