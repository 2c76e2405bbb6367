"""The durable run log on Firestore. The only package that imports Firestore's client library."""

from ._connection import Connection, Patience
from ._service import FirestoreRunLogService, create_service
from ._writer import FirestoreWriter

__all__ = ["Connection", "FirestoreRunLogService", "FirestoreWriter", "Patience", "create_service"]
