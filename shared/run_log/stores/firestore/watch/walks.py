"""Walks over what changed, in pages, by whoever is behind the changes as they happen."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from run_log.core import InvalidCursorError
from run_log.core.clock import moment_of
from run_log.core.ids import document_id
from run_log.stores.firestore.client import RUNS, Connection, nanos
from run_log.stores.firestore.queries import changed_query
from run_log.stores.listings import check_names, decode_parts, encode_parts
from run_log.stores.stored.fields import CHANGED_AT, PROJECTION

from .changes import Change, ChangePosition, requests_around

_KINDS: Final = (int, str, int, int, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPosition:
    """How far a watch has come.

    One that is behind walks in rounds, page by page in the order in which documents changed, which is only
    about that of their commits. A round is about what was committed until it began; documents that change
    meanwhile belong to the next. So what is left of a round only ever becomes less, and it can be left and
    gone on with at any time, by anybody.
    """

    seen: ChangePosition
    """Everything up to there has been delivered."""
    until: int = 0
    """When the round under way began, in nanoseconds since the epoch; 0 where none is."""
    changed_at: int = 0
    """Of the last document that the round has come past, in microseconds since the epoch."""
    path: str = ""
    """Of that document, below the database; empty where the round has come past none."""

    def past(self, document: Any) -> Self:
        """Return this place once the round has come past *document*, a protocol buffer."""
        changed_at = document.fields[PROJECTION].map_value.fields[CHANGED_AT].timestamp_value
        path = document.name.split("/documents/", 1)[1]
        # Stored in microseconds, unlike the time of the commit.
        return replace(self, changed_at=nanos(changed_at) // 1_000, path=path)

    def includes(self, change: Change) -> bool:
        """Return whether the round under way is to deliver *change*."""
        return change.place > self.seen and change.place.nanos <= self.until

    def cursor(self, root: str, selection: str) -> str:
        """Return the cursor that goes on from here."""
        path = self.path.removeprefix(f"{root}/")
        place = (self.seen.nanos, self.seen.path, self.until, self.changed_at, path)
        return encode_parts(place, scope="watch", selection=selection)

    @classmethod
    def of(cls, cursor: object, root: str, selection: str) -> Self:
        """Return the place that *cursor* was made of.

        Raises:
            InvalidCursorError: It is malformed, or of a watch of other runs.
        """
        moment, seen, until, micros, path = decode_parts(cursor, _KINDS, scope="watch", selection=selection)
        try:
            for each in (moment, until, micros * 1_000):
                requests_around(each)
        except OverflowError as error:
            raise InvalidCursorError(f"{reprlib.repr(cursor)} is not a cursor; it names no moment") from error
        for name, between in ((seen, "/"), (path, f"/{RUNS}/")):
            if name:
                workflow, _, run = name.partition(between)
                check_names(cursor, workflow, run)
        path = path and f"{root}/{path}"
        return cls(seen=ChangePosition(moment, seen), until=until, changed_at=micros, path=path)


class ChangedDocuments:
    """Reads what changed of one workflow's runs, or of all; see `Connection` for what that raises.

    Args:
        connection: Where to.
        root: The collection that holds the projection.
        workflow_id: The workflow; None for all.
        page: How many documents are a page.
    """

    def __init__(self, connection: Connection, root: str, workflow_id: str | None, *, page: int) -> None:
        self._connection = connection
        self._root = root
        self._workflow_id = workflow_id
        self._page = page

    async def now(self) -> int:
        """Return Firestore's time, in nanoseconds since the epoch."""
        return await self._connection.now(self._root)

    async def page(self, place: WatchPosition) -> tuple[Sequence[Any], bool]:
        """Return the next documents of *place*'s round, and whether they are its last."""
        client = self._connection.client()
        runs = client.collection_group(RUNS)
        if self._workflow_id is not None:
            runs = client.collection(self._root).document(document_id(self._workflow_id)).collection(RUNS)
        # The index is by when requests began. Commits come a little later, and not in that order, so a walk
        # takes in a margin at both ends and `includes` leaves out what is not of the round.
        since, _ = requests_around(place.seen.nanos)
        _, until = requests_around(place.until)
        query = changed_query(runs, self._root, since, until).limit(self._page)
        if place.path:
            changed_at = moment_of(place.changed_at)
            after = {f"{PROJECTION}.{CHANGED_AT}": changed_at, "__name__": client.document(place.path)}
            query = query.start_after(after)
        documents = await self._connection.query(query)
        return documents, len(documents) < self._page
