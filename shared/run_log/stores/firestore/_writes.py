"""The projection's documents in Firestore: atomic commits under preconditions, and reads."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Final

from run_log.core import WriteRefusedError
from run_log.core.clock import micros_of
from run_log.core.errors import GuessRefusedError
from run_log.core.ids import document_id
from run_log.core.models import RunKey
from run_log.stores.committing.commits import Commit, KnownRun, RunWrite, StatsWrite
from run_log.stores.stored.fields import (
    CHANGED_AT,
    CHANGED_SHARD,
    EXPIRE_AT,
    HISTORY,
    OPTIONAL,
    PROJECTION,
    changed_shard,
)
from run_log.stores.stored.reading import head_to_merge

from ._stats import AS_OF, SHARDS, counter_path, past_paths, stats_path
from .client import REFUSED_ERRORS, RPC_TIMEOUT_SECONDS, RUNS, VENDOR_ERRORS, Connection
from .codec import (
    REQUEST_TIME,
    Write,
    batch_get_request,
    commit_request,
    fields_of,
    found_document,
    set_fields,
    texts,
    update_times,
)

_HISTORY_PATH: Final = f"{PROJECTION}.{HISTORY}"
_CHANGED_AT_PATH: Final = f"{PROJECTION}.{CHANGED_AT}"
_CHANGED_SHARD_PATH: Final = f"{PROJECTION}.{CHANGED_SHARD}"


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
        return (await self._sent(self._writes(commit)))[: len(commit.runs)]

    async def repair(self, stats: StatsWrite, *, guard: str, expected: Any | None) -> Any:
        """Add *stats* to a workflow's, and count that in another document; return the mark of that.

        Args:
            stats: What to add.
            guard: The path of the document that counts.
            expected: The mark that it has to have; None: it must not be there yet.

        Raises:
            GuessRefusedError: It has another one; nothing is written.
            StoreUnavailableError: See `commit`.
            WriteRefusedError: See `commit`.
            ConfigurationError: See `commit`.
        """
        counting = Write()
        counting.update.name = f"{self._database}/documents/{guard}"
        counting.update_mask.SetInParent()
        # A write that changes nothing would keep the mark.
        counting.update_transforms.add(field_path="count").increment.integer_value = 1
        if expected is None:
            counting.current_document.exists = False
        else:
            counting.current_document.update_time.CopyFrom(expected)
        with self._refusing():
            writes = [counting, self._stats_write(stats)]
        mark, _ = await self._sent(writes)
        return mark

    async def _sent(self, writes: Sequence[Any]) -> list[Any]:
        request = commit_request(self._database, writes)
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
        return update_times(response)

    async def read(self, keys: Iterable[RunKey]) -> Mapping[RunKey, KnownRun]:
        """See `ProjectionDocuments.read`."""
        names = {self._run_name(key): key for key in keys}
        client = self._connection.client()
        known: dict[RunKey, KnownRun] = {}
        try:
            responses = await client._firestore_api.batch_get_documents(  # noqa: SLF001 - see commit
                request=batch_get_request(self._database, names, ["status", EXPIRE_AT, PROJECTION]),
                metadata=client._rpc_metadata,  # noqa: SLF001
                retry=None,
                timeout=RPC_TIMEOUT_SECONDS,
            )
            async for response in responses:
                document = found_document(response)
                if document is not None:
                    key = names[document.name]
                    stored = head_to_merge(fields_of(document.fields), key)
                    known[key] = KnownRun(stored=stored, mark=document.update_time)
        except VENDOR_ERRORS as error:
            raise self._connection.error(error) from error
        return known

    def _writes(self, commit: Commit) -> list[Any]:
        with self._refusing():
            return [
                *(self._run_write(run) for run in commit.runs),
                *(self._stats_write(stats) for stats in commit.stats),
                *(self._announcement(*announced) for announced in commit.announced.items()),
            ]

    @contextlib.contextmanager
    def _refusing(self) -> Generator[None]:
        try:
            yield
        except (ValueError, TypeError, OverflowError) as error:
            # A number or a text that a protocol buffer cannot hold: no try will make it one.
            raise WriteRefusedError(f"{self._connection} cannot hold a value ({error})") from error

    def _run_write(self, run: RunWrite) -> Any:
        write = Write()
        write.update.name = self._run_name(run.key)
        stored = write.update.fields
        if run.fields is not None:
            set_fields(stored, run.fields)
        if run.expires_at is not None and not run.keeps_expiry:
            set_fields(stored, {EXPIRE_AT: run.expires_at})
        projected = stored[PROJECTION].map_value.fields
        set_fields(projected, run.projection)
        projected[CHANGED_SHARD].integer_value = changed_shard(run.key[1])
        write.update_transforms.add(field_path=_CHANGED_AT_PATH).set_to_server_value = REQUEST_TIME
        if run.replaces_history:
            texts(projected[HISTORY].array_value.values, run.history)
        else:
            transform = write.update_transforms.add(field_path=_HISTORY_PATH)
            texts(transform.append_missing_elements.values, run.history)
        if run.expected is None:
            write.current_document.exists = False
            return write
        write.current_document.update_time.CopyFrom(run.expected)
        # What the mask does not name is kept as it is stored; the transforms take effect all the same.
        write.update_mask.field_paths.append(_CHANGED_SHARD_PATH)
        if run.fields is not None:
            # A path without a field takes away what is stored there.
            projection = {*OPTIONAL, *run.projection}
            write.update_mask.field_paths.extend(run.fields)
            write.update_mask.field_paths.extend(sorted(f"{PROJECTION}.{name}" for name in projection))
        if not run.keeps_expiry:
            write.update_mask.field_paths.append(EXPIRE_AT)
        if run.replaces_history:
            write.update_mask.field_paths.append(_HISTORY_PATH)
        return write

    def _stats_write(self, stats: StatsWrite) -> Any:
        write = self._workflow_write(stats.workflow_id, stats.shard)
        delta = stats.delta
        counts = {"total": delta.total, "successful": delta.successful}
        counts |= {f"by_status.{status.value}": count for status, count in delta.by_status.items()}
        counts |= {counter_path(counter): count for counter, count in stats.counters.items()}
        for path, count in counts.items():
            write.update_transforms.add(field_path=path).increment.integer_value = count
        if stats.as_of is not None:
            write.update_transforms.add(field_path=AS_OF).maximum.integer_value = micros_of(stats.as_of)
        if stats.forgets is not None:
            # A path without a field takes away what is stored there.
            write.update_mask.field_paths.extend(past_paths(stats.forgets))
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
