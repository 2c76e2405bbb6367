"""What the Firestore tests share: a service whose calls are counted, and fail when told to."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any

from google.api_core import exceptions as google_errors

from run_log.core import ConfigurationError, StoreError, WriteRefusedError, utc_now
from run_log.core.ids import document_id
from run_log.core.models import RunKey
from run_log.stores import FirestoreRunLogService
from run_log.stores.committing.committer import Committer
from run_log.stores.firestore import Connection
from run_log.stores.firestore._documents import FirestoreDocuments
from run_log.stores.firestore.client import Patience, run_path
from run_log.stores.firestore.watch.changes import Bounds
from run_log.stores.firestore.watch.feed import Feed
from run_log.stores.stored.fields import CHANGED_AT, CHANGED_SHARD, PROJECTION


def vendor_error(name: str) -> Exception:
    """Return an error of the vendor's, by the name of its class."""
    errors: Any = google_errors  # published without annotations
    error: Exception = getattr(errors, name)("the vendor's words")
    return error


FINAL_ERRORS: list[tuple[str, type[Exception], str]] = [
    ("PermissionDenied", ConfigurationError, "grant roles/datastore.user"),
    ("Unauthenticated", ConfigurationError, "grant roles/datastore.user"),
    ("InvalidArgument", WriteRefusedError, "for good"),
    ("OutOfRange", StoreError, "failed"),
]
"""What no call gets over: the vendor's error, ours, and what that says."""

NOT_DEPLOYED: list[tuple[str, type[Exception], str]] = [
    ("NotFound", ConfigurationError, "set RUN_LOG_DATABASE"),
    ("FailedPrecondition", ConfigurationError, "firestore.indexes.json"),
]
"""What no query gets over; to a commit the same says that a precondition did not hold."""

CALLS = ("commit", "batch_get_documents", "run_query", "run_aggregation_query", "listen")
"""The calls to Firestore that a run log makes."""


class Watch:
    """Sees every call to Firestore, and decides which fail."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._called = asyncio.Event()
        self.writes: list[list[str]] = []
        self.changes: list[int] = []
        """Of each commit: the most changes of one document's fields."""
        self.masked: list[int] = []
        """Of each commit: the paths in the masks of the writes of stats."""
        self.contradictions: list[str] = []
        """Fields that one write took away and changed."""
        self.documents = 0
        """How many were returned."""
        self.before: defaultdict[str, list[Exception]] = defaultdict(list)
        """Errors of the next calls, by name, that Firestore never sees."""
        self.after: defaultdict[str, list[Exception]] = defaultdict(list)
        """Errors of the next calls, by name, whose answer is lost."""
        self.garbled = 0
        """How many of the next responses of listeners cannot be decoded."""

    def fail(self, error: str, *, times: int) -> Exception:
        """Have so many next calls of each kind fail unseen by Firestore; return the vendor's error."""
        theirs = vendor_error(error)
        for name in CALLS[:-1]:
            self.before[name] = [theirs] * times
        return theirs

    async def called(self, name: str, times: int) -> None:
        """Wait until there were that many calls of that name."""
        while self.calls.count(name) < times:
            self._called.clear()
            await self._called.wait()

    async def call(self, name: str, method: Any, arguments: Sequence[Any], named: dict[str, Any]) -> Any:
        """Make a call, unless it is to fail."""
        self.calls.append(name)
        self._called.set()
        if name == "commit":
            writes = named["request"].writes
            self.writes.append([_path(write) for write in writes])
            self.changes.append(max(len(write.update_transforms) for write in writes))
            self.contradictions += [path for write in writes for path in _taken_and_changed(write)]
            stats = [write for write in writes if "/runs/" not in _path(write)]
            self.masked.append(sum(len(write.update_mask.field_paths) for write in stats))
        if self.before[name]:
            raise self.before[name].pop(0)
        answer = await method(*arguments, **named)
        if self.after[name]:
            raise self.after[name].pop(0)
        return answer if name == "commit" else self._counted(answer)

    async def _counted(self, answers: Any) -> AsyncIterator[Any]:
        async for answer in answers:
            self.documents += bool(getattr(answer, "document", None) or getattr(answer, "found", None))
            yield answer


def _taken_and_changed(write: Any) -> list[str]:
    taken = tuple(f"{path}." for path in write.update_mask.field_paths)
    changed = [transform.field_path for transform in write.update_transforms]
    return [path for path in changed if f"{path}.".startswith(taken)]


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


class OpenedService(FirestoreRunLogService):
    """A run log that shows its documents."""

    def reference(self, path: str) -> Any:
        """Return the reference of a document."""
        return self._connection.client().document(path)


class WatchedService(OpenedService):
    """A run log whose calls are counted, and fail when told to."""

    def __init__(
        self,
        watch: Watch,
        patience: Patience,
        *,
        known_runs: int = 100,
        stats_shards: int = 1,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__()
        self._connection = WatchedConnection(watch)
        self._patience = patience
        documents = FirestoreDocuments(self._connection, self._root)
        self._committer = Committer(
            documents,
            patience=patience,
            known_runs=known_runs,
            stats_shards=stats_shards,
            wall_now=now,
        )


class OpenFeed(Feed):
    """A feed that shows what it holds."""

    @property
    def is_listening(self) -> bool:
        """Whether it has a listener."""
        return self._listening is not None

    @property
    def kept(self) -> int:
        """How many changes it keeps."""
        return len(self._recent._changes)  # pyright: ignore[reportPrivateUsage]

    async def has_told(self, last: RunKey) -> None:
        """Wait until the newest change it was told is this run's."""
        while self._recent.newest.path != "/".join(map(document_id, last)):
            await self._told.wait()


class OpenService(FirestoreRunLogService):
    """A run log whose watches can be looked into, and whose listener begins anew without a pause.

    Args:
        bounds: How much its watches keep.
        watch: Sees the calls of its watches and queries.
    """

    def __init__(self, bounds: Bounds | None = None, *, watch: Watch | None = None) -> None:
        super().__init__()
        if watch is not None:
            self._connection = WatchedConnection(watch)
        self._bounds = bounds or Bounds()
        self._open_feeds: dict[object, OpenFeed] = {}

    @property
    def feed(self) -> OpenFeed:
        """The running event loop's feed."""
        return self._feed()

    async def forget_changes(self, key: RunKey) -> None:
        """Make a run's document one that an earlier version stored."""
        document = self._connection.client().document(run_path(self._root, key))
        fields = (await document.get()).to_dict()
        for name in (CHANGED_AT, CHANGED_SHARD):
            del fields[PROJECTION][name]
        await document.set(fields)

    def _feed(self) -> OpenFeed:
        loop = asyncio.get_running_loop()
        if loop not in self._open_feeds:
            self._open_feeds[loop] = OpenFeed(
                self._connection,
                self.path,
                bounds=self._bounds,
                patience=self._endless,
                uniform=lambda low, _: low,
            )
        return self._open_feeds[loop]


class _WatchedCalls:
    def __init__(self, api: Any, watch: Watch) -> None:
        self._api = api
        self._watch = watch

    @property
    def transport(self) -> _WatchedTransport:
        return _WatchedTransport(self._api.transport, self._watch)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._api, name)
        if name not in CALLS:
            return method

        async def call(*arguments: Any, **named: Any) -> Any:
            return await self._watch.call(name, method, arguments, named)

        return call


class _WatchedTransport:
    def __init__(self, transport: Any, watch: Watch) -> None:
        self._transport = transport
        self._watch = watch

    def listen(self, requests: Any, **named: Any) -> _WatchedListener:
        return _WatchedListener(self._transport.listen(requests, **named), self._watch)

    async def close(self) -> None:
        await self._transport.close()


class _WatchedListener:
    def __init__(self, responses: Any, watch: Watch) -> None:
        self._responses = responses
        self._watch = watch

    async def __aiter__(self) -> AsyncIterator[Any]:
        async def listen() -> None:
            """Only be counted, or fail."""

        await self._watch.call("listen", listen, (), {})
        async for response in self._responses:
            is_garbled = self._watch.garbled > 0
            self._watch.garbled -= is_garbled
            yield None if is_garbled else response

    def cancel(self) -> None:
        self._responses.cancel()


def _path(write: Any) -> str:
    """Return where *write* goes, below the database."""
    name: str = write.update.name
    return name.split("/documents/", 1)[1]
