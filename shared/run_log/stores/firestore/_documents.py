"""The projection's documents in Firestore: atomic commits under preconditions, and reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from run_log.core import RunKey, UnreadableRunError, WriteRefusedError, document_id
from run_log.stores._commits import Commit, KnownRun, RunWrite, StatsWrite
from run_log.stores._documents import HISTORY, PAUSED_STARTED_AT, PROJECTION, head_from_fields
from run_log.stores._patience import GuessRefusedError

from ._connection import REFUSED_ERRORS, RPC_TIMEOUT_SECONDS, RUNS, VENDOR_ERRORS, Connection
from ._protobuf import (
    Write,
    batch_get_request,
    commit_request,
    fields_of,
    found_document,
    set_fields,
    texts,
    update_times,
)

STATS_SHARDS: Final = "stats"
"""The collection below a workflow's document that holds the shards of its stats but the first."""

SHARDS: Final = "shards"
"""In a workflow's document: how many shards its stats may have. Absent where there is only the document."""

_HISTORY_PATH: Final = f"{PROJECTION}.{HISTORY}"


class FirestoreDocuments:
    """See `ProjectionDocuments`.

    Args:
        connection: Where to.
        root_collection: The collection that holds the projection.
    """

    def __init__(self, connection: Connection, root_collection: str) -> None:
        self._connection = connection
        self._database = f"projects/{connection.project}/databases/{connection.database}"
        self._root = f"{self._database}/documents/{root_collection}"

    async def commit(self, commit: Commit) -> Sequence[Any]:
        """See `ProjectionDocuments.commit`."""
        request = commit_request(self._database, self._writes(commit))
        client = self._connection.client()
        try:
            response = await client._firestore_api.commit(  # noqa: SLF001 - its own batches are built value by value
                request=request,
                metadata=client._rpc_metadata,  # noqa: SLF001
                retry=None,
                timeout=RPC_TIMEOUT_SECONDS,
            )
        except REFUSED_ERRORS as error:
            raise GuessRefusedError(
                f"{self._connection} holds another state than assumed ({error})"
            ) from error
        except VENDOR_ERRORS as error:
            raise self._connection.error(error) from error
        return update_times(response)[: len(commit.runs)]

    async def read(self, keys: Iterable[RunKey]) -> Mapping[RunKey, KnownRun]:
        """See `ProjectionDocuments.read`."""
        names = {self._run_name(key): key for key in keys}
        client = self._connection.client()
        known: dict[RunKey, KnownRun] = {}
        try:
            responses = await client._firestore_api.batch_get_documents(  # noqa: SLF001 - see commit
                request=batch_get_request(self._database, names, ["status", PROJECTION]),
                metadata=client._rpc_metadata,  # noqa: SLF001
                retry=None,
                timeout=RPC_TIMEOUT_SECONDS,
            )
            async for response in responses:
                document = found_document(response)
                if document is not None:
                    known[names[document.name]] = _known_run(document, names[document.name])
        except VENDOR_ERRORS as error:
            raise self._connection.error(error) from error
        return known

    def _writes(self, commit: Commit) -> list[Any]:
        try:
            return [
                *(self._run_write(run) for run in commit.runs),
                *(self._stats_write(stats) for stats in commit.stats),
                *(self._announcement(*announced) for announced in commit.announced.items()),
            ]
        except (ValueError, TypeError) as error:
            # A number or a text that a protocol buffer cannot hold: no try will make it one.
            raise WriteRefusedError(f"{self._connection} cannot hold a value ({error})") from error

    def _run_write(self, run: RunWrite) -> Any:
        write = Write()
        write.update.name = self._run_name(run.key)
        stored = write.update.fields
        if run.fields is not None:
            set_fields(stored, run.fields)
            set_fields(stored[PROJECTION].map_value.fields, run.projection)
        if run.replaces_history:
            texts(stored[PROJECTION].map_value.fields[HISTORY].array_value.values, run.history)
        else:
            transform = write.update_transforms.add(field_path=_HISTORY_PATH)
            texts(transform.append_missing_elements.values, run.history)
        if run.expected is None:
            write.current_document.exists = False
            return write
        write.current_document.update_time.CopyFrom(run.expected)
        # Without a path in it, the mask keeps all that is stored: only the transform takes effect.
        write.update_mask.SetInParent()
        if run.fields is not None:
            # A path without a field takes away what is stored there.
            projection = {PAUSED_STARTED_AT, *run.projection}
            write.update_mask.field_paths.extend(run.fields)
            write.update_mask.field_paths.extend(sorted(f"{PROJECTION}.{name}" for name in projection))
        if run.replaces_history:
            write.update_mask.field_paths.append(_HISTORY_PATH)
        return write

    def _stats_write(self, stats: StatsWrite) -> Any:
        write = self._workflow_write(stats.workflow_id, stats.shard)
        delta = stats.delta
        counts = {"total": delta.total, "successful": delta.successful}
        counts |= {f"by_status.{status.value}": count for status, count in delta.by_status.items()}
        for path, count in counts.items():
            write.update_transforms.add(field_path=path).increment.integer_value = count
        return write

    def _announcement(self, workflow_id: str, shards: int) -> Any:
        write = self._workflow_write(workflow_id, 0)
        write.update_transforms.add(field_path=SHARDS).maximum.integer_value = shards
        return write

    def _workflow_write(self, workflow_id: str, shard: int) -> Any:
        """Return a write that makes sure that a shard's document says whose it is."""
        write = Write()
        write.update.name = stats_path(self._root, workflow_id, shard)
        write.update.fields["workflow_id"].string_value = workflow_id
        write.update_mask.field_paths.append("workflow_id")
        return write

    def _run_name(self, key: RunKey) -> str:
        workflow_id, run_id = key
        return f"{self._root}/{document_id(workflow_id)}/{RUNS}/{document_id(run_id)}"


def stats_path(root: str, workflow_id: str, shard: int) -> str:
    """Return the path of the document that holds one shard of a workflow's stats, below *root*."""
    workflow = f"{root}/{document_id(workflow_id)}"
    return f"{workflow}/{STATS_SHARDS}/{shard}" if shard else workflow


def _known_run(document: Any, key: RunKey) -> KnownRun:
    """Return what can be merged into; where it cannot be read, nobody knows what the stats count it as."""
    try:
        stored = head_from_fields(fields_of(document.fields), key)
    except UnreadableRunError as error:
        raise WriteRefusedError(f"no event can be merged into it: {error}") from error
    return KnownRun(stored=stored, mark=document.update_time)
