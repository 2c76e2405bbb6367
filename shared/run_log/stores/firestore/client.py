"""The one client of Firestore: its calls, how they are tried again, and the vendor's errors as ours.

Calls take and give protocol buffers. Going through the vendor's layers costs ten times as much: it was most
of what a projection cost (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, cast

import google.auth
from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore
from google.cloud.firestore_v1.types import firestore as firestore_types
from grpc.aio import AioRpcError
from typing_extensions import override

from run_log.core import (
    ConfigurationError,
    RunLogError,
    Settings,
    StoreError,
    StoreUnavailableError,
    WriteRefusedError,
)
from run_log.core.backoff import Backoff
from run_log.core.clock import EPOCH, MICROSECOND
from run_log.core.errors import GuessRefusedError
from run_log.core.google_cloud import GoogleCloud
from run_log.core.ids import document_id
from run_log.core.models import RunKey
from run_log.stores.stored.fields import SHARDS
from run_log.stores.telemetry import count_retry

RUNS: Final = "runs"
"""The collection of run documents below each workflow's document."""

RPC_TIMEOUT_SECONDS: Final = 10.0
"""How long one call may take."""

VERSIONS_KEPT: Final = timedelta(hours=1)
"""For how long Firestore can be read as it was (https://firebase.google.com/docs/firestore/use-pitr): with
point-in-time recovery longer, but of each minute only."""

PATIENCE_SECONDS: Final = 15.0
"""How long an operation is tried before it is given up, retries included."""

_BACKOFF: Final = Backoff(0.1, 2.0)

_SECOND: Final = timedelta(seconds=1)

# A precondition did not hold, or a lock was not to be had: AlreadyExists and Aborted are both Conflicts.
_REFUSED: Final = (google_errors.Conflict, google_errors.NotFound, google_errors.FailedPrecondition)

VENDOR_ERRORS: Final = (google_errors.GoogleAPIError, auth_errors.GoogleAuthError, AioRpcError)
"""What a call to Firestore may raise."""

_PASSING: Final = (
    google_errors.ServerError,
    google_errors.TooManyRequests,
    google_errors.Aborted,
    google_errors.Cancelled,
    google_errors.RetryError,
    auth_errors.TransportError,
    AioRpcError,
)
_DENIED: Final = (google_errors.PermissionDenied, google_errors.Unauthenticated)

# The vendor's errors, each with ours and what to do; the first that fits counts.
_OURS: Final[tuple[tuple[Any, type[RunLogError], str], ...]] = (
    (_DENIED, ConfigurationError, "denies access; grant roles/datastore.user"),
    (google_errors.NotFound, ConfigurationError, "is not there; create it or set RUN_LOG_DATABASE"),
    (
        google_errors.FailedPrecondition,
        ConfigurationError,
        "lacks an index; deploy infra/firestore.indexes.json",
    ),
    (_PASSING, StoreUnavailableError, "does not answer; is it up and reachable?"),
    (google_errors.InvalidArgument, WriteRefusedError, "refuses the request for good"),
    (auth_errors.GoogleAuthError, ConfigurationError, "does not accept the credentials"),
)

_types: Any = firestore_types
_CommitRequest: Final = _types.CommitRequest.pb()
_BatchGetRequest: Final = _types.BatchGetDocumentsRequest.pb()
_ListenRequest: Final = _types.ListenRequest.pb()
_RunQueryRequest: Final = _types.RunQueryRequest.pb()
_RunAggregationQueryRequest: Final = _types.RunAggregationQueryRequest.pb()
_ListDocumentsRequest: Final = _types.ListDocumentsRequest.pb()

_COUNT: Final = "runs"

_T = TypeVar("_T")

# The process in which a client of this module was used first.
_used_in: Final[list[int]] = []


class Patience:
    """Retries around one operation of ours: jittered, bounded, and cancelled when the caller is.

    It is tried for so many *seconds*, which may be infinite.
    """

    def __init__(
        self,
        seconds: float = PATIENCE_SECONDS,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._uniform = uniform
        self._sleep = sleep
        self._now = now

    async def run(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        """Return what *operation* returns, trying again while the store is unavailable.

        Raises:
            StoreUnavailableError: It was unavailable to the end.
        """
        # One layer of retries. The vendor's client has its own, which would multiply with these, and it does
        # not know that a refused guess is to be read before it is tried again.
        end = self._now() + self._seconds
        failures = 0
        while True:
            try:
                return await operation()
            except StoreUnavailableError as error:
                if self._now() >= end:
                    raise
                failures += 1
                is_guess = isinstance(error, GuessRefusedError)
            count_retry("guess_refused" if is_guess else "unavailable")
            # A refused guess says that the store is well: what it holds is known by now.
            wait = 0.0 if is_guess and failures == 1 else _BACKOFF.seconds(failures, self._uniform)
            await self._sleep(wait)


class Connection(GoogleCloud):
    """Firestore clients, one for each event loop: the vendor's is bound to the loop it is first used in.

    Args:
        project: Google Cloud project; None takes ``GOOGLE_CLOUD_PROJECT``, then the credentials' own.
        database: Firestore database; None is ``(default)``.

    Raises:
        ConfigurationError: There is no project, or there are no credentials.
    """

    def __init__(self, project: str | None, database: str | None) -> None:
        # Looked up once, over the network; the vendor's client would do so for each event loop.
        super().__init__(
            "Firestore",
            project or Settings.from_env().project,
            variable="FIRESTORE_EMULATOR_HOST",
            find_credentials=cast("Any", google.auth).default,  # not annotated
            failures=(auth_errors.GoogleAuthError,),
        )
        self.database: str = database or "(default)"
        self.database_name = f"projects/{self.project}/databases/{self.database}"
        """The full name of the database."""
        self.documents_name = f"{self.database_name}/documents"
        """What the full names of its documents and collections begin with."""
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()

    @override
    def __str__(self) -> str:
        return f"Firestore ({self.where}, project {self.project!r}, database {self.database!r})"

    def client(self) -> Any:
        """Return the running event loop's `firestore.AsyncClient`; its annotations are too loose to use.

        Raises:
            ConfigurationError: This process was forked from one that had used a client.
        """
        if not _used_in:
            _used_in.append(os.getpid())
        elif _used_in[0] != os.getpid():
            # The thread that hears of answers, and of timeouts, stayed with the parent: a call would not end.
            raise ConfigurationError(
                f"this process was forked from one that had used {self}, which gRPC's asynchronous client "
                "does not outlive; fork before the first run, start processes anew (spawn), or set "
                "RUN_LOG_BACKEND=pubsub to record in them"
            )
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            anonymous: Any = AnonymousCredentials  # not annotated
            made: Any = firestore.AsyncClient(
                project=self.project,
                database=self.database,
                credentials=self.credentials or anonymous(),
            )
            # It reads the variable by itself, and anew: what began on the emulator must not end elsewhere.
            # And where that is set to nothing, it would look for an emulator at no address.
            made._emulator_host = self.emulator  # noqa: SLF001
            self._clients[loop] = made
        return self._clients[loop]

    async def reach(self, root_collection: str, seconds: float) -> None:
        """Return once Firestore answers, within that time; raise what `error` returns if it does not."""
        # A document that is not there: no workflow of ours has runs under that name.
        await self.documents([f"{root_collection}/run-log-probe"], ["workflow_id"], timeout=seconds)

    def path(self, document: Any) -> str:
        """Return the path of a document, a protocol buffer, below the database."""
        return str(document.name).removeprefix(f"{self.documents_name}/")

    async def commit(self, writes: Iterable[Any]) -> list[Any]:
        """Make all *writes* or none, and return when each document is marked to have changed, in order.

        Raises:
            GuessRefusedError: A precondition did not hold; nothing is written.
            StoreUnavailableError: Firestore does not answer, or was too busy. The writes may be there.
            RunLogError: See `error`; nothing is written.
        """
        request = _types.CommitRequest.wrap(_CommitRequest(database=self.database_name, writes=writes))
        with self.translated():
            try:
                # A batch, not a transaction: that would lock what it reads, and cost a read for each run.
                response = await self._call("commit", request)
            except _REFUSED as error:
                raise GuessRefusedError(f"{self} holds another state than assumed ({error})") from error
        return [result.update_time for result in _types.CommitResponse.pb(response).write_results]

    async def documents(
        self,
        paths: Iterable[str],
        fields: Sequence[str] = (),
        *,
        at: datetime | None = None,
        timeout: float = RPC_TIMEOUT_SECONDS,  # noqa: ASYNC109 - Firestore is told
    ) -> list[Any]:
        """Return those of the documents at *paths*, below the database, that are there, in any order.

        Of each, *fields* are read, or all; *at* is as of which moment, None for now.

        Raises:
            RunLogError: See `error`, as for every read.
        """
        found = await self._batch_get(paths, fields, at, timeout)
        return [response.found for response in found if response.HasField("found")]

    async def now(self, root_collection: str) -> int:
        """Return Firestore's time in nanoseconds since the epoch: what was committed by then can be read.

        It is told by a read, of a document below *root_collection* that need not be there.
        """
        # A snapshot of the vendor's would cut the time of the read to microseconds.
        found = await self._batch_get([f"{root_collection}/-"], ["workflow_id"], None, RPC_TIMEOUT_SECONDS)
        return max(nanos(response.read_time) for response in found)

    async def query(
        self, query: Any, *, at: datetime | None = None, after: Any = None, sorted_by: str | None = None
    ) -> list[Any]:
        """Return the documents of *query*, one of the vendor's.

        Args:
            query: In the order of one field at most, and of names.
            at: As of which moment; None for now.
            after: The document to go on after; None for where the query begins.
            sorted_by: The path of the field; None for names alone.
        """
        parent, structured = _structured(query)
        if after is not None:
            _go_on_after(structured, after, sorted_by)
        request = _RunQueryRequest(parent=parent, structured_query=structured)
        if at is not None:
            set_moment(request.read_time, at)
        with self.translated(at):
            responses = await self._call("run_query", _types.RunQueryRequest.wrap(request))
            # All of them within the caller's retry: the vendor's asynchronous stream does not go on by itself
            # after a fault in the middle, as its blocking one does.
            found = [_types.RunQueryResponse.pb(response) async for response in responses]
        return [response.document for response in found if response.HasField("document")]

    async def count(self, query: Any, *, at: datetime | None = None) -> int:
        """Return how many documents *query* has, one of the vendor's, as of a moment or now. None is read."""
        parent, structured = _structured(query)
        structured.ClearField("select")
        request = _RunAggregationQueryRequest(parent=parent)
        counting = request.structured_aggregation_query
        counting.structured_query.CopyFrom(structured)
        counting.aggregations.add(alias=_COUNT).count.SetInParent()
        if at is not None:
            set_moment(request.read_time, at)
        with self.translated(at):
            responses = await self._call(
                "run_aggregation_query", _types.RunAggregationQueryRequest.wrap(request)
            )
            found = [_types.RunAggregationQueryResponse.pb(response) async for response in responses]
        (result,) = (response.result for response in found if response.HasField("result"))
        return int(result.aggregate_fields[_COUNT].integer_value)

    async def names(self, collection: str, *, size: int, token: str) -> tuple[list[str], str]:
        """Return a page of the full names in a root collection, and the page's token; empty at the end.

        Documents that are missing, but have others below, are named too. *token* is of the page before; empty
        for the first.
        """
        request = _ListDocumentsRequest(
            parent=self.documents_name,
            collection_id=collection,
            page_size=size,
            page_token=token,
            show_missing=True,
        )
        request.mask.field_paths.append("workflow_id")
        with self.translated():
            page = await self._call("list_documents", _types.ListDocumentsRequest.wrap(request))
        return [str(document.name) for document in page.documents], str(page.next_page_token)

    def listen(self, query: Any, is_over: asyncio.Event, seconds: float) -> Any:
        """Return the vendor's call that tells of the documents of *query*; see `listen_response`.

        It ends once *is_over* is set, or after so many *seconds*.
        """
        request = _ListenRequest(database=self.database_name)
        parent, structured = _structured(query)
        request.add_target.target_id = 1
        request.add_target.query.parent = parent
        request.add_target.query.structured_query.CopyFrom(structured)
        client = self.client()
        # The transport's call, as the vendor's own listener makes it: the client's waits for the connection,
        # and cancelled meanwhile leaves a call that nobody can end. `on_snapshot` is not there for
        # asynchronous clients (https://github.com/googleapis/python-firestore/issues/131).
        return client._firestore_api.transport.listen(  # noqa: SLF001
            _held_open(_types.ListenRequest.wrap(request), is_over),
            metadata=client._rpc_metadata,  # noqa: SLF001
            timeout=seconds,
        )

    async def _batch_get(
        self,
        paths: Iterable[str],
        fields: Sequence[str],
        at: datetime | None,
        timeout: float,  # noqa: ASYNC109 - Firestore is told
    ) -> list[Any]:
        names = [f"{self.documents_name}/{path}" for path in paths]
        request = _BatchGetRequest(database=self.database_name, documents=names)
        if fields:
            request.mask.field_paths.extend(fields)
        if at is not None:
            set_moment(request.read_time, at)
        with self.translated(at):
            responses = await self._call(
                "batch_get_documents", _types.BatchGetDocumentsRequest.wrap(request), timeout
            )
            return [_types.BatchGetDocumentsResponse.pb(response) async for response in responses]

    async def _call(self, name: str, request: Any, timeout: float = RPC_TIMEOUT_SECONDS) -> Any:  # noqa: ASYNC109
        client = self.client()
        call = getattr(client._firestore_api, name)  # noqa: SLF001 - its own calls build values one by one
        # `Patience` tries again, so the vendor's client does not.
        return await call(request=request, metadata=client._rpc_metadata, retry=None, timeout=timeout)  # noqa: SLF001

    async def close(self) -> None:
        """Close the running event loop's client; those of other loops end with their loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            # close() of the vendor's asynchronous client leaves its channel open.
            await client._firestore_api.transport.close()  # noqa: SLF001

    @contextlib.contextmanager
    def translated(self, at: datetime | None = None) -> Generator[None]:
        """Raise the vendor's errors in the block as ours; *at* is the moment that is read, None is now."""
        try:
            yield
        except VENDOR_ERRORS as error:
            raise self.error(error, at) from error

    def error(self, error: Exception, at: datetime | None = None) -> RunLogError:
        """Return *error*, a vendor's, as one of ours that says what to do; *at* as in `translated`."""
        is_refused = isinstance(error, google_errors.FailedPrecondition | google_errors.InvalidArgument)
        if is_refused and at is not None and datetime.now(UTC) - at >= VERSIONS_KEPT:
            return StoreError(
                f"{self} no longer knows what was stored at {at.isoformat()}: it can be read as it was for "
                f"an hour, and reading the workflow took longer; run it where Firestore is near ({error})"
            )
        for theirs, ours, advice in _OURS:
            if isinstance(error, theirs):
                return ours(f"{self} {advice} ({error})")
        return StoreError(f"{self} failed ({error})")


def run_path(root_collection: str, key: RunKey) -> str:
    """Return the path of a run's document below the database."""
    workflow_id, run_id = key
    return f"{root_collection}/{document_id(workflow_id)}/{RUNS}/{document_id(run_id)}"


def shards_of(root_collection: str) -> Sequence[str]:
    """Return what `CHANGED_SHARD` may be in the runs below a root collection."""
    return [f"{root_collection}/{number}" for number in range(SHARDS)]


def listen_response(response: Any) -> Any:
    """Return one response of a listener as a protocol buffer."""
    return _types.ListenResponse.pb(response)


def nanos(moment: Any) -> int:
    """Return a protobuf timestamp in nanoseconds since the epoch."""
    # Two commits may be nanoseconds apart, and a datetime would make one moment of both.
    return int(moment.seconds) * 1_000_000_000 + int(moment.nanos)


def set_moment(target: Any, moment: datetime) -> None:
    """Set a protobuf timestamp to *moment*, which is aware."""
    since = moment - EPOCH
    target.seconds = since // _SECOND
    target.nanos = since % _SECOND // MICROSECOND * 1_000


def fields_of(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a map of protobuf values as plain ones."""
    return {name: _value_of(value) for name, value in source.items()}


def _value_of(value: Any) -> Any:
    kind = value.WhichOneof("value_type")
    match kind:
        case "null_value":
            return None
        case "map_value":
            return fields_of(value.map_value.fields)
        case "array_value":
            return [_value_of(item) for item in value.array_value.values]
        case "timestamp_value":
            moment = value.timestamp_value
            return EPOCH + moment.seconds * _SECOND + moment.nanos // 1_000 * MICROSECOND
        case _:
            return getattr(value, kind) if kind else None


def _structured(query: Any) -> tuple[str, Any]:
    parent, _ = query._parent._parent_info()  # noqa: SLF001 - as the vendor's listener makes its request
    return parent, query._to_protobuf()._pb  # noqa: SLF001


def _go_on_after(structured: Any, document: Any, sorted_by: str | None) -> None:
    # By the stored value as it is. The vendor's datetimes pass through a float: those before 1970 come out
    # elsewhere, and the end of year 9999 beyond what a protobuf timestamp may be
    # (https://protobuf.dev/reference/protobuf/google.protobuf/#timestamp).
    structured.ClearField("start_at")
    if sorted_by is not None:
        fields = document.fields
        *maps, name = sorted_by.split(".")
        for outer in maps:
            fields = fields[outer].map_value.fields
        structured.start_at.values.add().CopyFrom(fields[name])
    structured.start_at.values.add().reference_value = document.name


async def _held_open(request: Any, is_over: asyncio.Event) -> AsyncIterator[Any]:
    yield request
    # The server ends the stream of a client that has said all.
    await is_over.wait()
