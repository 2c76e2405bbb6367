"""The durable run log in one file of this machine, on the standard library's SQLite."""

from ._service import SQLiteRunLogService, create_service

__all__ = ["SQLiteRunLogService", "create_service"]
