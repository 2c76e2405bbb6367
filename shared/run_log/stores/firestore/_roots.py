"""A root collection as a whole: what a rebuild reads of one, and what it does to one at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Self

from pydantic import ValidationError

from run_log.core import (
    EventDecodeError,
    Message,
    NotFoundError,
    RunEvent,
    Settings,
    UnreadableRunError,
    WorkflowRun,
    decode_event,
)
from run_log.core.clock import micros_of
from run_log.core.fields import STORED
from run_log.core.ids import document_id
from run_log.core.law import FoldedRun
from run_log.core.payload import encode_json
from run_log.core.settings import check_collection_id
from run_log.core.wire import run_dump_to_event
from run_log.stores.firestore.watch.changes import RUN_PATH
from run_log.stores.retention import Retention
from run_log.stores.stored.fields import EXPIRE_AT, PROGRESS_DIGEST, PROJECTION
from run_log.stores.stored.reading import at_its_place, head_from_fields, key_at, run_from_fields

from ._audit import FirestoreAudit
from ._documents import Write, set_fields
from ._foreign import document_text, foreign_run
from .client import RUNS, Connection, Patience, fields_of, nanos

PAGE: Final = 200
"""Documents read at a time: at a megabyte each they are still a few seconds' reading."""

HEADS: Final = 5
"""How many times as many documents are read at a time where only their change times are wanted."""

# An emulator may show a commit a little later than it says that it was made. What is read twice counts once.
SETTLED: Final = timedelta(seconds=10)
"""Changes so long before a moment are taken for some after it."""

_FIRST: Final = "\x01"  # the document id before all others
_HEAD_FIELDS: Final = ("status", EXPIRE_AT, PROJECTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A document that holds no run."""

    error: UnreadableRunError
    """Why."""
    body: bytes
    """What it holds, as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootPage:
    """Some of the runs of a root collection, one after another by their documents' names."""

    runs: Sequence[FoldedRun]
    unreadable: Mapping[str, Unreadable] = field(default_factory=dict[str, Unreadable])
    """What cannot be read, by path below the root collection."""
    assumed: Mapping[str, int] = field(default_factory=dict[str, int])
    """What was assumed to read documents that are not run-log's, and of how many."""
    after: str | None
    """Where the next page goes on; None where nothing is left."""


class FirestoreRoot:
    """One root collection as a whole, page by page; a page goes on from any other one's `RootPage.after`.

    What is changed while pages are read may be seen as it was or as it is; what is new may be missed.

    Whatever reads or writes raises `StoreUnavailableError` where the store does not answer in bounded time,
    and `ConfigurationError` where it is not there, or does not let us in.

    Raises:
        ConfigurationError: *root_collection* is no collection id.
    """

    def __init__(self, connection: Connection, root_collection: str, *, page: int = PAGE) -> None:
        self._connection = connection
        self._root = check_collection_id(root_collection)
        self._patience = Patience()
        self._page = page

    @classmethod
    def from_settings(cls, settings: Settings, root_collection: str) -> Self:
        """Return that root collection of the database that *settings* describe; see the constructor."""
        return cls(Connection(settings.project, settings.database), root_collection)

    async def now(self) -> datetime:
        """Return the time by Firestore's clock: what was committed before is on the pages that come.

        Raises:
            NotFoundError: No workflow and no run is below the collection: nothing tells that it is there.
        """
        audit = FirestoreAudit(self._connection, self._root, patience=self._patience, page=1)
        async with aclosing(audit.workflows()) as workflows:
            if await anext(workflows, None) is None:
                raise NotFoundError(
                    f"{self._connection} has no root collection {self._root!r}, or an empty one; is its name "
                    "right, and are GOOGLE_CLOUD_PROJECT and RUN_LOG_DATABASE?"
                )
        return await audit.store_now()

    async def page(self, after: str = "", *, since: datetime | None = None) -> RootPage:
        """Return the runs after a place, expired ones too; the first page is after an empty one.

        With *since*, only runs whose documents have changed since then, by whomever, are on the page. That
        costs a read a run, for when it changed, and one more for each that has.

        A document that something without versions stored becomes what a bare run in an archive is, and is the
        later the longer after its creation it was written again.
        """
        documents, last = await self._changed_documents(after, since)
        runs: list[FoldedRun] = []
        unreadable: dict[str, Unreadable] = {}
        assumed: Counter[str] = Counter()
        for path, document in documents.items():
            fields = fields_of(document.fields)
            workflow, run = path.split(f"/{RUNS}/")
            try:
                if fields.get(PROJECTION):
                    runs.append(_folded(fields, workflow, run))
                    continue
                bare, guesses = foreign_run(fields, place=(workflow, run))
                runs.append(FoldedRun(event=_bare(bare, document), history=()))
                assumed.update(guesses)
            except UnreadableRunError as error:
                unreadable[path] = Unreadable(error=error, body=document_text(fields))
        return RootPage(runs=runs, unreadable=unreadable, assumed=assumed, after=last)

    async def expire_page(self, days: int, after: str = "") -> tuple[int, str | None]:
        """Have ended runs after a place expire that do not yet, so many *days* after their latest event.

        Returns:
            How many that were, and where to go on; None where nothing is left.

        Raises:
            ConfigurationError: *days* cannot be used.
        """
        retention = Retention.of_days(days)

        async def expire() -> tuple[int, str | None]:
            documents, last = await self._documents(after, _HEAD_FIELDS)
            writes = [
                write
                for path, document in documents.items()
                if (write := _expiry(document, path, retention)) is not None
            ]
            if writes:
                await self._connection.commit(writes)
            return len(writes), last

        return await self._patience.run(expire)

    async def expire(self, days: int, workflow_id: str | None = None) -> int:
        """Do as `expire_page` with all runs, or a workflow's and at most a page of what comes after it."""
        own = "" if workflow_id is None else f"{document_id(workflow_id)}/{RUNS}/"
        after: str | None = f"{own}{_FIRST}" if own else ""
        expired = 0
        while after is not None and after.startswith(own):
            count, after = await self.expire_page(days, after)
            expired += count
        return expired

    async def close(self) -> None:
        """Close the connection of the running event loop. Closing twice is fine."""
        await self._connection.close()

    async def _changed_documents(
        self, after: str, since: datetime | None
    ) -> tuple[dict[str, Any], str | None]:
        """Return a page's documents, all or those that have changed, and where the next page goes on."""
        if since is None:
            return await self._documents(after, None)
        begins = micros_of(since - SETTLED) * 1_000
        # By the time of the commit, which Firestore keeps of every document: `CHANGED_AT` is missing where
        # another program has written, and comes a little before.
        heads, last = await self._documents(after, ["status"], HEADS * self._page)
        paths = [f"{self._root}/{path}" for path, head in heads.items() if nanos(head.update_time) >= begins]
        documents: dict[str, Any] = {}
        for start in range(0, len(paths), self._page):
            part = paths[start : start + self._page]
            found = await self._patience.run(partial(self._connection.documents, part))
            documents |= {self._below(document): document for document in found}
        return documents, last

    async def _documents(
        self, after: str, fields: Sequence[str] | None, size: int | None = None
    ) -> tuple[dict[str, Any], str | None]:
        """Return a page's documents by path below the root, and where the next page goes on."""
        size = size or self._page
        client = self._connection.client()
        place = client.document(f"{self._root}/{after or f'{_FIRST}/{RUNS}/{_FIRST}'}")
        query = (
            client.collection_group(RUNS).order_by("__name__").limit(size).start_after({"__name__": place})
        )
        if fields is not None:
            query = query.select(fields)
        found = await self._patience.run(partial(self._connection.query, query))
        root = f"{self._connection.documents_name}/{self._root}/"
        # A group spans every root collection; those that come after this one in the order end it.
        own = {self._below(document): document for document in found if document.name.startswith(root)}
        is_last = len(found) < size or len(own) < len(found)
        last = None if is_last else self._below(found[-1])
        return {path: document for path, document in own.items() if RUN_PATH.fullmatch(path)}, last

    def _below(self, document: Any) -> str:
        """Return the path of a document below the root collection."""
        return self._connection.path(document).removeprefix(f"{self._root}/")


def _folded(fields: Mapping[str, Any], workflow: str, run: str) -> FoldedRun:
    key = key_at(workflow, run)
    at_its_place(workflow, run)(fields)
    projection = fields[PROJECTION]
    head = head_from_fields(fields, key).head
    try:
        event = RunEvent.model_validate(
            {
                "event_id": head.version.event_id,
                "hlc": head.version.hlc,
                "occurred_at": projection["occurred_at"],
                "inferred": bool(projection.get("inferred")),
                "is_progress": PROGRESS_DIGEST in projection and head.is_progress,
                "run": dict(run_from_fields(fields, key)),
            },
            context=STORED,  # an id may be longer than is taken today
        )
    except (KeyError, ValidationError) as error:
        raise UnreadableRunError(*key, f"its projection map is damaged: {error!r}") from error
    history = tuple(transition for transition in head.history if transition.version <= event.version)
    return FoldedRun(event=event, history=history, steps=head.steps)


def _bare(run: WorkflowRun, document: Any) -> RunEvent:
    try:
        body = run_dump_to_event(run.model_dump(mode="json", exclude_none=True))
        # A version is no moment: one before the epoch would be none.
        body["hlc"] = max(body["hlc"], 0)
        event = decode_event(Message(data=encode_json(body).encode()))
    except (EventDecodeError, ValueError) as error:
        raise UnreadableRunError(*run.key, str(error)) from error
    # Its times only say when it started and ended, which does not tell a run that went on from a paused one.
    # How long after its creation it was written does, and that is 0 where a backup was imported.
    written = (nanos(document.update_time) - nanos(document.create_time)) // 1_000
    later = micros_of(run.started_at) + written - micros_of(run.completed_at or run.started_at)
    return event.model_copy(update={"hlc": event.hlc + max(later, 0)})


def _expiry(document: Any, path: str, retention: Retention | None) -> Any | None:
    """Return the write that has a document's run expire; None where it does already, or never will."""
    try:
        stored = head_from_fields(fields_of(document.fields), ("", path))
    except UnreadableRunError:
        return None
    if retention is None or stored.expires_at is not None or not stored.head.history:
        return None
    expires_at = retention.expires_at(stored.head)
    if expires_at is None:
        return None
    write = Write()
    write.update.name = document.name
    set_fields(write.update.fields, {EXPIRE_AT: expires_at})
    write.update_mask.field_paths.append(EXPIRE_AT)
    # Where an event has come between, this is refused and the page is read again.
    write.current_document.update_time.CopyFrom(document.update_time)
    return write
