"""What a store remembers of its runs takes bytes within a bound, whatever the runs are like."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from run_log.core import Message, RunEvent, RunStatus, decode_event
from run_log.core.history import MAX_HISTORY
from run_log.core.ids import MAX_ID_BYTES
from run_log.core.law import fold
from run_log.core.models import RunKey
from run_log.core.wire import EVENT_TYPE
from run_log.stores import InMemoryRunLogService
from run_log.stores.committing.commits import Commit, KnownRun
from run_log.stores.committing.committer import Committer, Recent, head_bytes, names_bytes
from run_log.stores.firestore.client import Patience

MEBIBYTE = 2**20
BEGUN = datetime(2026, 3, 4, 12, tzinfo=UTC)


class _Documents:
    """Stores nothing, and takes everything."""

    async def commit(self, commit: Commit) -> Sequence[Any]:
        """See `ProjectionDocuments.commit`."""
        return [object() for _ in commit.runs]

    async def read(self, keys: Iterable[RunKey]) -> Mapping[RunKey, KnownRun]:
        """See `ProjectionDocuments.read`."""
        del keys
        return {}


def _events(number: int, states: int, *, size: int) -> list[RunEvent]:
    """Return a run's states as somebody publishes them whose every id is as long as it may be, and longer."""
    name = f"{number}".ljust(size, "\U0001f600")
    return [
        decode_event(
            Message(
                data=json.dumps(
                    {
                        "type": EVENT_TYPE,
                        "event_id": f"{number}-{state}".ljust(128, "e"),
                        "hlc": 10**15 + state,
                        "occurred_at": (BEGUN + timedelta(seconds=state)).isoformat(),
                        "run": {
                            "id": name,
                            "workflow_id": name,
                            "status": RunStatus.RUNNING,
                            "trigger_type": "manual",
                            "started_at": BEGUN.isoformat(),
                            "pause": {"answered_by": f"{number}{state}".ljust(110, "a") + "\u2026"},
                        },
                    }
                ).encode()
            )
        )
        for state in range(states)
    ]


def _deep_bytes(value: object, seen: set[int]) -> int:
    """Return how many bytes *value* and all it holds take, each thing once."""
    if id(value) in seen or value is None or isinstance(value, type):
        return 0
    seen.add(id(value))
    size = sys.getsizeof(value)
    held: list[Any]
    if isinstance(value, Mapping):
        entries = cast("Mapping[object, object]", value)
        held = [*entries.keys(), *entries.values()]
    elif isinstance(value, tuple | list):
        held = [*cast("Sequence[object]", value)]
    elif is_dataclass(value):
        held = [getattr(value, field.name) for field in fields(value)]
    else:
        held = []
    return size + sum(_deep_bytes(item, seen) for item in held)


@pytest.mark.parametrize(
    ("states", "size"), [(1, 36), (3, 36), (MAX_HISTORY, 36), (1, 50_000), (MAX_HISTORY, MAX_ID_BYTES // 4)]
)
def test_a_remembered_run_is_counted_as_what_it_takes(states: int, size: int) -> None:
    """What a run in memory is counted as is no less than what it takes, and not much more."""
    events = _events(7, states, size=size)
    head, key = fold(None, events).after, events[0].key

    counted = names_bytes(key) + head_bytes(head)

    assert _deep_bytes((key, head), set()) <= counted <= 3 * _deep_bytes((key, head), set())


async def test_a_committer_remembers_runs_within_bytes() -> None:
    """However long ids and histories are that others publish, runs are remembered within a bound of bytes."""
    committer = Committer(_Documents(), patience=Patience())
    events = _events(7, MAX_HISTORY, size=50_000)
    await committer.apply(events)
    remembered: Recent[RunKey, KnownRun] = committer._known  # pyright: ignore[reportPrivateUsage] - what is held
    run = remembered.get(events[0].key)
    assert run is not None
    assert remembered.data_bytes == names_bytes(events[0].key) + head_bytes(run.stored.head)

    for number in range(5_000):
        remembered.put(("w", str(number)), run)

    assert 60 * MEBIBYTE < remembered.data_bytes <= 64 * MEBIBYTE
    assert 1_000 < len(remembered) < 5_000


def test_what_is_used_least_recently_is_forgotten_first() -> None:
    """Beyond a bound, of number or of bytes, what was used least recently goes; the newest always stays."""
    recent: Recent[str, bytes] = Recent(3, 100, lambda key, value: len(key) + len(value))
    for key in "abc":
        recent.put(key, b"x" * 9)
    assert recent.get("a") == b"x" * 9
    recent.put("d", b"")
    assert [b"x" * 9, None, b"x" * 9, b""] == [recent.get(key) for key in "abcd"]
    assert (3, 21) == (len(recent), recent.data_bytes)

    recent.put("a", b"x" * 90)
    assert [b"x" * 90, b"", None] == [recent.get(key) for key in "adc"]

    recent.put("e", b"x" * 200)
    assert (1, 201, b"x" * 200) == (len(recent), recent.data_bytes, recent.get("e"))
    recent.pop("e")
    recent.pop("never")
    assert (0, 0, None) == (len(recent), recent.data_bytes, recent.get("e"))


@pytest.mark.parametrize(
    ("most", "most_bytes", "kept"),
    [
        (3, 100, "abc"),
        (2, 100, "bc"),
        (1, 100, "c"),
        (0, 100, "c"),
        (9, 30, "abc"),
        (9, 29, "bc"),
        (9, 0, "c"),
    ],
)
def test_as_much_is_remembered_as_may_be(most: int, most_bytes: int, kept: str) -> None:
    """As many entries are kept as are allowed, of number and of bytes, but never none."""
    recent: Recent[str, bytes] = Recent(most, most_bytes, lambda key, value: len(key) + len(value))

    for key in "abc":
        recent.put(key, b"x" * 9)

    assert kept == "".join(key for key in "abc" if recent.get(key))


def test_threads_share_what_is_remembered() -> None:
    """However many threads put and take at once, the bytes that are counted are those that are kept."""
    recent: Recent[int, bytes] = Recent(50, 1_000, lambda _key, value: len(value))

    def use(first: int) -> None:
        for number in range(first, first + 4_000):
            recent.put(number % 90, b"x" * (number % 60))
            recent.get((number * 7) % 90)
            recent.pop((number * 11) % 90)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(use, range(4)))
    finally:
        sys.setswitchinterval(interval)

    kept = [value for key in range(90) if (value := recent.get(key)) is not None]
    assert len(kept) == len(recent)
    assert sum(map(len, kept)) == recent.data_bytes


async def test_evicted_runs_are_remembered_within_bytes() -> None:
    """Heads of runs that the embedded run log has evicted are counted in bytes, however long their ids."""
    log = InMemoryRunLogService()
    for number in range(250):
        events = _events(number, 2, size=MAX_ID_BYTES // 4)
        await log.apply([event.model_copy(update={"run": _in_one_workflow(event)}) for event in events])

    (workflow,) = log._workflows.values()  # pyright: ignore[reportPrivateUsage] - what is held
    evicted: Any = workflow.evicted
    assert 50 == len(evicted)
    assert _deep_bytes(evicted._entries, set()) <= evicted.data_bytes <= 50 * 5_000


def _in_one_workflow(event: RunEvent) -> Any:
    return event.run.model_copy(update={"workflow_id": "w"})
