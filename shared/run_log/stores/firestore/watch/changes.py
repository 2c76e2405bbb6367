"""Changes of run documents in one order: the newest as they are told, within bounds, and walks over all."""

from __future__ import annotations

import re
import reprlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Self

from google.api_core import exceptions as google_errors
from google.cloud.firestore_v1.types import firestore as firestore_types

from run_log.core import InvalidCursorError
from run_log.core.clock import moment_of
from run_log.core.ids import document_id
from run_log.stores.firestore.client import RPC_TIMEOUT_SECONDS, RUNS, Connection, nanos
from run_log.stores.firestore.queries import changed_query
from run_log.stores.listings import check_names, decode_parts, encode_parts
from run_log.stores.stored.fields import CHANGED_AT, PROJECTION

MARGIN: Final = timedelta(seconds=2 * RPC_TIMEOUT_SECONDS)
"""How much earlier than its commit a document's `CHANGED_AT` may be. The server stamps it when it begins with
a commit, whose caller waits `RPC_TIMEOUT_SECONDS`; as much again for a server that goes on after that."""

RUN_PATH: Final = re.compile(rf"(?P<workflow>[^/]+)/{RUNS}/(?P<run>[^/]+)")
"""The path of a run's document below the collection that holds the projection."""

_vendor_errors: Any = google_errors  # published without annotations

_types: Any = firestore_types
TargetChange: Final[Any] = _types.TargetChange.pb()
"""The class of what a listener says of its query; it has the kinds there are."""

_KINDS: Final = (int, str, int, int, str)

# What the vendor's own listener takes for an error without a code.
_INTERNAL: Final = 13


class ChangePosition(NamedTuple):
    """Where a change stands among all changes: a total order, in which a commit's come together."""

    nanos: int
    """When it was committed, since the epoch."""
    path: str
    """Of the document: the workflow's document id, a slash, the run's; empty for before any."""

    @classmethod
    def after_all_at(cls, moment: int) -> Self:
        """Return the place after whatever was committed until *moment*, in nanoseconds since the epoch."""
        return cls(moment + 1, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A run's document as a commit left it."""

    place: ChangePosition
    document: Any
    """As a protocol buffer."""

    @classmethod
    def of(cls, document: Any, root: str) -> Self | None:
        """Return the change that left *document*; None where that is not below *root*, a full name."""
        # A group of collections spans every root collection.
        before, _, path = document.name.partition(f"{root}/")
        ids = RUN_PATH.fullmatch(path)
        if before or ids is None:
            return None
        place = ChangePosition(nanos(document.update_time), f"{ids['workflow']}/{ids['run']}")
        return cls(place=place, document=document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is kept in memory, and for how long a listener is trusted."""

    changes: int = 1_000
    """Changes kept for those who watch."""
    bytes: int = 16 * 2**20
    """Bytes of those changes' documents; one is kept whatever its size."""
    page: int = 100
    """Documents read at a time by a watch that is behind."""
    listen_seconds: float = 1_800.0
    """After that long a listener begins anew: one that never does matches all that has changed since."""
    silent_seconds: float = 30.0
    """After that long without a word it begins anew, too: a dead connection is as silent as an idle store."""


class RecentChanges:
    """The newest changes after a *floor*, in order, within bounds."""

    def __init__(self, floor: ChangePosition, bounds: Bounds) -> None:
        self.floor = floor
        """Every change after this place, of those that were added, is there."""
        self.newest = floor
        """The place up to which changes were added."""
        self._bounds = bounds
        self._changes: list[Change] = []
        self._bytes = 0

    def add(self, changes: Iterable[Change]) -> None:
        """Add *changes*, all of them after those that were added before."""
        # A consistent state is told in no order.
        for change in sorted(changes, key=_place):
            self._changes.append(change)
            self._bytes += change.document.ByteSize()
            self.newest = change.place
        # Bounded, however slowly watches take them: one that falls behind walks through the store instead.
        surplus = 0
        while len(self._changes) - surplus > 1 and self._exceeds(len(self._changes) - surplus):
            self._bytes -= self._changes[surplus].document.ByteSize()
            self.floor = self._changes[surplus].place
            surplus += 1
        del self._changes[:surplus]

    def after(self, place: ChangePosition) -> Change | None:
        """Return the first change after *place*; None where it has yet to come."""
        index = bisect_right(self._changes, place, key=_place)
        return self._changes[index] if index < len(self._changes) else None

    def _exceeds(self, count: int) -> bool:
        return count > self._bounds.changes or self._bytes > self._bounds.bytes


class Snapshot:
    """What a listener has told since its last consistent state, within bounds: of more, the newest.

    *root* is the full name of the collection that holds the projection. Consistent states go to *recent*.
    """

    def __init__(self, root: str, recent: RecentChanges, bounds: Bounds) -> None:
        self._root = root
        self._recent = recent
        self._bounds = bounds
        self._is_current = False
        self._clear()

    def take_in(self, message: Any) -> bool:
        """Take in what a listener says, and return whether all it told is consistent now.

        Raises:
            GoogleAPICallError: It says that it will tell nothing.
        """
        if message.HasField("document_change"):
            change = Change.of(message.document_change.document, self._root)
            # What is not newer was told before: the margin's at first, and everything after a reset.
            if change is not None and change.place > self._recent.newest:
                self.add(change)
        if not message.HasField("target_change"):
            return False  # a document, or that one is gone from the query, or how many it has
        told = message.target_change
        kind = told.target_change_type
        if kind == TargetChange.REMOVE:
            raise _vendor_errors.from_grpc_status(told.cause.code or _INTERNAL, told.cause.message)
        if kind == TargetChange.RESET:
            self._clear()
        if kind in {TargetChange.RESET, TargetChange.CURRENT}:
            self._is_current = kind == TargetChange.CURRENT
        # The vendor's promise for a moment without targets is a consistent state of them all.
        return self._is_current and told.HasField("read_time") and not told.target_ids

    def pour_out(self) -> None:
        """Hand everything over, in a consistent state, and be empty."""
        # Not up to that moment: the emulator's lies after what it tells. Each state has all that was
        # committed before the newest change in it, on both.
        self._recent.add(self._changes.values())
        if self._dropped is not None:
            self._recent.floor = max(self._recent.floor, self._dropped)
        self._clear()

    def _clear(self) -> None:
        self._changes: dict[str, Change] = {}
        self._bytes = 0
        self._dropped: ChangePosition | None = None

    def add(self, change: Change) -> None:
        """Take in a change that is newer than all that were handed over."""
        before = self._changes.get(change.place.path)
        if before is not None:
            # Read and told at once, the two may come in either order.
            if before.place >= change.place:
                return
            self._bytes -= before.document.ByteSize()
        self._changes[change.place.path] = change
        self._bytes += change.document.ByteSize()
        if len(self._changes) > 2 * self._bounds.changes or self._bytes > 2 * self._bounds.bytes:
            self._drop()

    def _drop(self) -> None:
        """Keep the newer half."""
        # Half at a time, so that a flood is not sorted anew with each change.
        in_order = sorted(self._changes.values(), key=_place)
        half = len(in_order) // 2
        dropped, kept = in_order[:half], in_order[half:]
        if dropped:
            last = dropped[-1].place
            self._dropped = last if self._dropped is None else max(self._dropped, last)
        self._changes = {change.place.path: change for change in kept}
        self._bytes = sum(change.document.ByteSize() for change in kept)


def requests_around(nanos: int) -> tuple[datetime, datetime]:
    """Return the earliest and the latest `CHANGED_AT` that a commit at that nanosecond may have.

    Raises:
        OverflowError: No datetime is so far away.
    """
    moment = moment_of(nanos // 1_000)
    return moment - MARGIN, moment + MARGIN


def _place(change: Change) -> ChangePosition:
    return change.place


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
    """Reads what changed of a workflow's runs, or of all where that is None; raises as `Connection` does."""

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
