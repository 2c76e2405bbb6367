"""What the Firestore tests share: a service whose calls are counted, and fail when told to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from google.api_core import exceptions as google_errors

from run_log.stores import FirestoreRunLogService
from run_log.stores._committer import Committer
from run_log.stores._patience import Patience
from run_log.stores.firestore import Connection
from run_log.stores.firestore._documents import FirestoreDocuments


def vendor_error(name: str) -> Exception:
    """Return an error of the vendor's, by the name of its class."""
    errors: Any = google_errors  # published without annotations
    error: Exception = getattr(errors, name)("the vendor's words")
    return error


CALLS = ("commit", "batch_get_documents", "run_query")
"""The calls to Firestore that a run log makes."""


class Watch:
    """Sees every call to Firestore, and decides which fail."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.writes: list[list[str]] = []
        self.before: defaultdict[str, list[Exception]] = defaultdict(list)
        """Errors of the next calls, by name, that Firestore never sees."""
        self.after: defaultdict[str, list[Exception]] = defaultdict(list)
        """Errors of the next calls, by name, whose answer is lost."""

    async def call(self, name: str, method: Any, arguments: Sequence[Any], named: dict[str, Any]) -> Any:
        """Make a call, unless it is to fail."""
        self.calls.append(name)
        if name == "commit":
            self.writes.append([_path(write) for write in named["request"].writes])
        if self.before[name]:
            raise self.before[name].pop(0)
        answer = await method(*arguments, **named)
        if self.after[name]:
            raise self.after[name].pop(0)
        return answer


class WatchedConnection(Connection):
    """A connection whose clients call through a watch."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(None, None)
        self._watch = watch

    def client(self) -> Any:
        """Return the running event loop's client, watched."""
        client = super().client()
        if type(client._firestore_api) is not _WatchedCalls:
            client._firestore_api_internal = _WatchedCalls(client._firestore_api, self._watch)
        return client


class WatchedService(FirestoreRunLogService):
    """A run log whose calls are counted, and fail when told to."""

    def __init__(
        self, watch: Watch, patience: Patience, *, known_runs: int = 100, stats_shards: int = 1
    ) -> None:
        super().__init__()
        self._connection = WatchedConnection(watch)
        self._patience = patience
        documents = FirestoreDocuments(self._connection, self._root)
        self._committer = Committer(
            documents, patience=patience, known_runs=known_runs, stats_shards=stats_shards
        )


class _WatchedCalls:
    def __init__(self, api: Any, watch: Watch) -> None:
        self._api = api
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._api, name)
        if name not in CALLS:
            return method

        async def call(*arguments: Any, **named: Any) -> Any:
            return await self._watch.call(name, method, arguments, named)

        return call


def _path(write: Any) -> str:
    """Return where *write* goes, below the database."""
    name: str = write.update.name
    return name.split("/documents/", 1)[1]
