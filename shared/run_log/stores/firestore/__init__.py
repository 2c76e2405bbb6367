"""The durable run log on Firestore. The only package that imports Firestore's client library."""

from run_log.stores.committing.commits import shard_of

from ._roots import FirestoreRoot, RootPage, Unreadable
from ._service import FirestoreRunLogService, create_service
from .client import Connection

__all__ = [
    "Connection",
    "FirestoreRoot",
    "FirestoreRunLogService",
    "RootPage",
    "Unreadable",
    "create_service",
    "shard_of",
]
