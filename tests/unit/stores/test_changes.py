"""Changes of documents in one order, within bounds; and the places that cursors are made of."""

from __future__ import annotations

from typing import Any

import pytest
from google.api_core import exceptions as google_errors
from google.cloud.firestore_v1.types import firestore as firestore_types

from run_log.core import InvalidCursorError
from run_log.stores.firestore.watch.changes import (
    Bounds,
    Change,
    ChangePosition,
    RecentChanges,
    Snapshot,
    TargetChange,
    WatchPosition,
)
from run_log.stores.listings import encode_parts

ROOT = "projects/p/databases/d/documents/root"
START = ChangePosition(0, "")

_types: Any = firestore_types
_ListenResponse: Any = _types.ListenResponse.pb()


def document(number: int, run_id: str, *, text: str = "", root: str = ROOT) -> Any:
    """Return a run's document, committed at that nanosecond."""
    message = _ListenResponse()
    found = message.document_change.document
    found.name = f"{root}/w/runs/{run_id}"
    found.update_time.nanos = number
    found.fields["text"].string_value = text
    return found


def change(number: int, run_id: str = "r", *, text: str = "") -> Change:
    """Return a change, committed at that nanosecond."""
    made = Change.of(document(number, run_id, text=text), ROOT)
    assert made is not None
    return made


def told(kind: Any, *, at: int = 1, targets: tuple[int, ...] = ()) -> Any:
    """Return what a listener says of its query."""
    message = _ListenResponse()
    message.target_change.target_change_type = kind
    message.target_change.target_ids.extend(targets)
    message.target_change.read_time.seconds = at
    return message


def changed(number: int, run_id: str = "r") -> Any:
    """Return what a listener says of a document."""
    message = _ListenResponse()
    message.document_change.document.CopyFrom(document(number, run_id))
    return message


def kept(recent: RecentChanges) -> list[ChangePosition]:
    """Return the places of all changes that are kept."""
    found: list[ChangePosition] = []
    place = recent.floor
    while (next_one := recent.after(place)) is not None:
        place = next_one.place
        found.append(place)
    return found


def test_changes_come_by_commit_and_path() -> None:
    """Changes come by the nanosecond of their commit, those of one commit by path."""
    recent = RecentChanges(START, Bounds())

    recent.add([change(2, "b"), change(2, "a"), change(1, "z")])

    assert [(1, "w/z"), (2, "w/a"), (2, "w/b")] == kept(recent)
    assert (2, "w/b") == recent.newest


@pytest.mark.parametrize(
    ("bounds", "newest"),
    [(Bounds(changes=2), [4, 5]), (Bounds(bytes=2 * 1_100), [4, 5]), (Bounds(bytes=1), [5])],
    ids=["number", "bytes", "larger than all bounds"],
)
def test_what_is_kept_is_bounded(bounds: Bounds, newest: list[int]) -> None:
    """Beyond their number or bytes all but the newest changes go, and what is promised begins after them."""
    recent = RecentChanges(START, bounds)

    recent.add([change(number, text="x" * 1_000) for number in range(1, 6)])

    assert newest == [place.nanos for place in kept(recent)]
    assert (newest[0] - 1, "w/r") == recent.floor


def snapshot_of(recent: RecentChanges, bounds: Bounds, *changes: Change) -> None:
    """Hand over *changes* as one consistent state."""
    snapshot = Snapshot(ROOT, recent, bounds)
    for each in changes:
        snapshot.add(each)
    snapshot.pour_out()


def test_a_snapshot_is_handed_over_once_it_is_consistent() -> None:
    """What a listener tells counts at a moment that holds for all of it, after it was said to be current."""
    recent = RecentChanges(START, Bounds())
    snapshot = Snapshot(ROOT, recent, Bounds())

    said = [
        told(TargetChange.ADD, targets=(1,)),
        changed(1, "a"),
        told(TargetChange.NO_CHANGE),
        told(TargetChange.CURRENT, targets=(1,)),
        _ListenResponse(filter={"count": 7}),
        told(TargetChange.NO_CHANGE),
    ]

    assert [False] * 5 + [True] == [snapshot.take_in(message) for message in said]
    assert [] == kept(recent)
    snapshot.pour_out()
    assert [(1, "w/a")] == kept(recent)


def test_after_a_reset_only_what_is_newer_counts() -> None:
    """A listener that is reset tells everything anew: what it told before comes no second time."""
    recent = RecentChanges(START, Bounds())
    snapshot = Snapshot(ROOT, recent, Bounds())
    reset = told(TargetChange.RESET, targets=(1,))
    first = [changed(1, "a"), changed(9, "lost"), reset, changed(1, "a"), changed(2, "b")]

    said = [snapshot.take_in(message) for message in (*first, told(TargetChange.CURRENT))]
    snapshot.pour_out()
    for message in (reset, changed(1, "a"), changed(2, "b"), changed(3, "c")):
        snapshot.take_in(message)
    snapshot.pour_out()

    assert [False] * 5 + [True] == said
    assert [(1, "w/a"), (2, "w/b"), (3, "w/c")] == kept(recent)


def test_of_one_run_a_snapshot_has_the_newest() -> None:
    """A run that changes twice between two consistent states is there once, as it is then."""
    recent = RecentChanges(START, Bounds())

    snapshot_of(recent, Bounds(), *(change(number) for number in (3, 5, 4)))

    assert [5] == [place.nanos for place in kept(recent)]


@pytest.mark.parametrize(
    ("bounds", "count", "first"), [(Bounds(changes=10), 100, 91), (Bounds(bytes=1), 3, 3)]
)
def test_a_snapshot_is_bounded(bounds: Bounds, count: int, first: int) -> None:
    """Of a snapshot larger than what is kept the newest is taken, and the promise begins after the rest."""
    recent = RecentChanges(START, bounds)

    snapshot_of(recent, bounds, *(change(number, f"r{number}") for number in range(1, count + 1)))

    assert list(range(first, count + 1)) == [place.nanos for place in kept(recent)]
    assert (first - 1, f"w/r{first - 1}") == recent.floor


@pytest.mark.parametrize(
    ("code", "error"), [(7, google_errors.PermissionDenied), (0, google_errors.InternalServerError)]
)
def test_a_query_that_is_refused(code: int, error: type[Exception]) -> None:
    """What a listener says against its query is the vendor's error; without a code, an internal one."""
    snapshot = Snapshot(ROOT, RecentChanges(START, Bounds()), Bounds())
    message = told(TargetChange.REMOVE)
    message.target_change.cause.code = code
    message.target_change.cause.message = "no more"

    with pytest.raises(error, match="no more"):
        snapshot.take_in(message)


@pytest.mark.parametrize("root", [f"{ROOT}2", "projects/p/databases/d/documents/x", f"{ROOT}/w/runs/r/root"])
def test_documents_elsewhere_are_no_changes(root: str) -> None:
    """A document below another root collection, or deeper, is none of ours."""
    assert Change.of(document(1, "r", root=root), ROOT) is None


PLACES = [
    WatchPosition(seen=ChangePosition(1_795_643_213_126_472_001, "")),
    WatchPosition(seen=ChangePosition(7, "w%2Fx/r")),
    WatchPosition(seen=ChangePosition(7, "w/r"), until=9, changed_at=8, path="root/w/runs/r"),
]


@pytest.mark.parametrize("place", PLACES)
def test_a_cursor_holds_its_place(place: WatchPosition) -> None:
    """A cursor gives back the very place that it was made of, to the nanosecond."""
    assert place == WatchPosition.of(place.cursor("root", "[null]"), "root", "[null]")


@pytest.mark.parametrize(
    "place",
    [
        (2**70, "w/r", 0, 0, ""),
        (-(2**70), "w/r", 0, 0, ""),
        (0, "w/r", 2**70, 0, ""),
        (0, "w/r", 1, 2**62, "w/runs/r"),
        (0, "w/r", 1, 1, "w/runs"),
        (0, "w/r", 1, 1, "w/elsewhere/r"),
        (0, "w/r", 1, 1, "/runs/"),
        (0, "w/r", 1, 1, "w/runs/r/x"),
    ],
)
def test_a_place_that_cannot_be_is_refused(place: tuple[int | str, ...]) -> None:
    """A cursor that names no moment or no run is refused, whoever made it."""
    cursor = encode_parts(place, scope="watch", selection="[null]")

    with pytest.raises(InvalidCursorError, match="is not a cursor"):
        WatchPosition.of(cursor, "root", "[null]")
