"""Documents as protocol buffers, without the vendor's layers between.

Building a write through the vendor's client costs ten times as much: it was most of what a projection
cost (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from google.cloud.firestore_v1.types import firestore as firestore_types
from google.cloud.firestore_v1.types import write as write_types

from run_log.core.clock import EPOCH, MICROSECOND

_SECOND: Final = timedelta(seconds=1)

_types: Any = firestore_types
_write_types: Any = write_types
_CommitRequest: Final = _types.CommitRequest.pb()
_BatchGetRequest: Final = _types.BatchGetDocumentsRequest.pb()
_ListenRequest: Final = _types.ListenRequest.pb()
_RunQueryRequest: Final = _types.RunQueryRequest.pb()
_ListDocumentsRequest: Final = _types.ListDocumentsRequest.pb()
Write: Final[Any] = _write_types.Write.pb()
"""The class of one write."""

TargetChange: Final[Any] = _types.TargetChange.pb()
"""The class of what a listener says of its query; it has the kinds there are."""

REQUEST_TIME: Final[int] = int(_write_types.DocumentTransform.FieldTransform.ServerValue.REQUEST_TIME)
"""The server's clock, as the value of a transform: milliseconds of when it began to process the request."""


def commit_request(database: str, writes: Iterable[Any]) -> Any:
    """Return the request for a commit of *writes*, as the vendor's client takes it."""
    return _types.CommitRequest.wrap(_CommitRequest(database=database, writes=writes))


def update_times(response: Any) -> list[Any]:
    """Return when each written document is marked to have changed, in the order of the writes."""
    return [result.update_time for result in _types.CommitResponse.pb(response).write_results]


def batch_get_request(
    database: str, names: Iterable[str], fields: Sequence[str], *, at: datetime | None = None
) -> Any:
    """Return the request to read the documents with these *names*.

    Args:
        database: The full name of theirs.
        names: Their full names.
        fields: What to read of each; none for all that is there.
        at: As of which moment; None for now.
    """
    request = _BatchGetRequest(database=database, documents=names)
    if fields:
        request.mask.field_paths.extend(fields)
    if at is not None:
        _set_moment(request.read_time, at)
    return _types.BatchGetDocumentsRequest.wrap(request)


def found_document(response: Any) -> Any | None:
    """Return the document in one response of a batch get; None where it says that there is none."""
    message = _types.BatchGetDocumentsResponse.pb(response)
    return message.found if message.HasField("found") else None


def read_nanos(response: Any) -> int:
    """Return the moment that one response of a batch get was read at."""
    return nanos(_types.BatchGetDocumentsResponse.pb(response).read_time)


def listen_request(database: str, query: Any) -> Any:
    """Return the request to be told of the documents of *query*, one of the vendor's."""
    request = _ListenRequest(database=database)
    parent, structured = _structured(query)
    request.add_target.target_id = 1
    request.add_target.query.parent = parent
    request.add_target.query.structured_query.CopyFrom(structured)
    return _types.ListenRequest.wrap(request)


def run_query_request(query: Any, *, at: datetime | None = None) -> Any:
    """Return the request to run *query*, one of the vendor's, as of a moment; None for now."""
    parent, structured = _structured(query)
    request = _RunQueryRequest(parent=parent, structured_query=structured)
    if at is not None:
        _set_moment(request.read_time, at)
    return _types.RunQueryRequest.wrap(request)


def list_documents_request(parent: str, collection: str, *, size: int, token: str) -> Any:
    """Return the request for a page of a collection's documents by name, missing ones that have others below.

    Args:
        parent: The full name of what the collection is in.
        collection: Its id.
        size: How many documents are a page.
        token: Of the page before; empty for the first.
    """
    request = _ListDocumentsRequest(
        parent=parent, collection_id=collection, page_size=size, page_token=token, show_missing=True
    )
    request.mask.field_paths.append("workflow_id")
    return _types.ListDocumentsRequest.wrap(request)


def listed_documents(response: Any) -> tuple[list[str], str]:
    """Return the names in the response to a `list_documents_request`, and its token; empty at the end.

    Args:
        response: The vendor's pager at its first page.
    """
    return [str(document.name) for document in response.documents], str(response.next_page_token)


def listen_response(response: Any) -> Any:
    """Return one response to a `listen_request` as a protocol buffer."""
    return _types.ListenResponse.pb(response)


def queried_document(response: Any) -> Any | None:
    """Return the document in one response to a `run_query_request`; None where it has none."""
    message = _types.RunQueryResponse.pb(response)
    return message.document if message.HasField("document") else None


def nanos(moment: Any) -> int:
    """Return a protobuf timestamp in nanoseconds since the epoch: a datetime would cut it."""
    return int(moment.seconds) * 1_000_000_000 + int(moment.nanos)


def set_fields(target: Any, fields: Mapping[str, Any]) -> None:
    """Set *fields* in a map of protobuf values.

    Args:
        target: The ``fields`` of a document or of a map value.
        fields: Values of the types that are stored: text, numbers, truth values, None, aware datetimes,
            and maps of these.
    """
    for name, value in fields.items():
        _set_value(target[name], value)


def texts(target: Any, values: Iterable[str]) -> None:
    """Append text *values* to an array's protobuf values."""
    for value in values:
        target.add().string_value = value


def fields_of(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a map of protobuf values as plain ones."""
    return {name: _value_of(value) for name, value in source.items()}


def _structured(query: Any) -> tuple[str, Any]:
    parent, _ = query._parent._parent_info()  # noqa: SLF001 - as the vendor's listener makes its request
    return parent, query._to_protobuf()._pb  # noqa: SLF001


def _set_value(target: Any, value: object) -> None:
    match value:
        case str():
            target.string_value = value
        case None:
            target.null_value = 0
        case bool():
            target.boolean_value = value
        case int():
            target.integer_value = value
        case float():
            target.double_value = value
        case datetime():
            _set_moment(target.timestamp_value, value)
        case Mapping():
            target.map_value.SetInParent()
            set_fields(target.map_value.fields, value)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            raise TypeError(f"a {type(value).__name__} is not stored as such")


def _set_moment(target: Any, moment: datetime) -> None:
    since = moment - EPOCH
    target.seconds = since // _SECOND
    target.nanos = since % _SECOND // MICROSECOND * 1_000


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
