"""The durable run log on Firestore. The only package that imports Firestore's client library."""

from ._connection import Connection
from ._roots import FirestoreRoot, RootPage
from ._service import FirestoreRunLogService, create_service

__all__ = ["Connection", "FirestoreRoot", "FirestoreRunLogService", "RootPage", "create_service"]
