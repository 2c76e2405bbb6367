"""What a committer guesses, remembers and packs together, on documents that are held in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.simulation.documents import REFUSED, TODAY, DocumentStore
from tests.simulation.record import Record

from run_log.core import Outcome, RunExpiredError, RunStatus, Transition, WriteRefusedError
from run_log.core.clock import PROCESS_CLOCK
from run_log.core.law import MAX_HISTORY, FoldedRun, run_digest
from run_log.core.models import RunKey
from run_log.stores.committing.commits import (
    MAX_COMMIT_BYTES,
    MAX_COMMIT_RUNS,
    MAX_STATS_CHANGES,
    Commit,
    KnownRun,
    batches,
)
from run_log.stores.committing.committer import WARY_COMMITS, Committer
from run_log.stores.firestore.client import Patience
from run_log.stores.retention import Retention
from run_log.stores.stored.writing import history_bytes
from run_log.testing import a_life, a_run, an_event

KEY: RunKey = ("w", "r")
HOUR = 3_600_000_000
"""In microseconds, as a clock reads it."""


class OverDays(DocumentStore):
    """Documents whose summaries are not recounted: that goes by the days that are counted on one day."""

    def check(self, workflow_id: str) -> None:
        """See `DocumentStore.check`."""


class Documents:
    """Documents that show what they are asked for; see `ProjectionDocuments`."""

    def __init__(self) -> None:
        self.store = DocumentStore(Record(lambda: 0.0))
        self.calls: list[str] = []
        self.commits: list[Commit] = []

    async def commit(self, commit: Commit) -> Sequence[Any]:
        """See `ProjectionDocuments.commit`."""
        self.calls.append("commit")
        self.commits.append(commit)
        return self.store.apply(commit)

    async def read(self, keys: Iterable[RunKey]) -> Mapping[RunKey, KnownRun]:
        """See `ProjectionDocuments.read`."""
        self.calls.append("read")
        return self.store.read(keys)


@pytest.fixture
def documents() -> Documents:
    """Return empty documents."""
    return Documents()


def committer(
    documents: Documents,
    *,
    known_runs: int = 100,
    stats_shards: int = 1,
    retention: Retention | None = None,
    now: Callable[[], datetime] = lambda: TODAY,
) -> Committer:
    """Return a committer that has remembered nothing yet."""
    return Committer(
        documents,
        patience=Patience(),
        known_runs=known_runs,
        stats_shards=stats_shards,
        retention=retention,
        wall_now=now,
    )


async def test_wariness_ends(documents: Documents) -> None:
    """After a wrong guess runs are read first, until sixteen commits in a row have met new ones only."""
    one, other = committer(documents), committer(documents)
    first, met = a_life("w", "first"), a_life("w", "met")
    for life in (first, met):
        await other.apply([life[0]])
    await one.apply([first[1]])
    assert ["commit"] * 3 + ["read", "commit"] == documents.calls[:5]
    await one.apply(a_life("w", "new"))
    await one.apply([met[1]])
    documents.calls.clear()

    for number in range(WARY_COMMITS + 3):
        await one.apply(a_life("w", f"new-{number}"))

    assert ["read", "commit"] * WARY_COMMITS + ["commit"] * 3 == documents.calls


async def test_commits_are_metered(
    documents: Documents, metered: Callable[[], Counter[tuple[str, ...]]]
) -> None:
    """Each try of a commit is counted and timed by how it ended, and the runs of those that were made."""
    before = metered()
    life = a_life("w", "r")

    await committer(documents).apply([life[0]])
    await committer(documents).apply([life[1]])
    await committer(documents).apply(a_life("w", "other"))
    with pytest.raises(WriteRefusedError):
        await committer(documents).apply([an_event(workflow_id="w", id=REFUSED)])

    told = metered() - before
    tries = {"committed": 3, "guess_refused": 1, "failed": 1}
    for name in ("run_log.store.commits", "run_log.store.commit.duration"):
        assert tries == {outcome: told[name, outcome] for outcome in tries}
    assert 3 == told["run_log.store.commit.runs",]


async def test_a_memory_of_one_run(documents: Documents) -> None:
    """A committer that remembers one run only is slower, never wrong; guessing wrong once, it reads first."""
    forgetful = committer(documents, known_runs=1)
    lives = [a_life("w", f"r{n}") for n in range(4)]
    for step in range(2):
        for life in lives:
            await forgetful.apply([life[step]])

    assert Counter({"read": 4, "commit": 4 * 2 + 1}) == Counter(documents.calls)
    assert {"total": 4, "successful": 4, "running": 0, "success": 4} == documents.store.stats["w", 0]


async def test_a_save_comes_after_what_is_stored(documents: Documents) -> None:
    """A save is the newest state though a clock that is ahead stamped what another committer wrote."""
    ahead = an_event(workflow_id="w", id="r", status=RunStatus.RUNNING, hlc=PROCESS_CLOCK.tick() + HOUR)
    saved = an_event(workflow_id="w", id="r", hlc=PROCESS_CLOCK.tick())
    await committer(documents).apply([ahead])

    await committer(documents).save(saved)

    head = documents.store.runs[KEY].known.stored.head
    assert [RunStatus.RUNNING, RunStatus.SUCCESS] == [transition.status for transition in head.history]
    assert (RunStatus.SUCCESS, run_digest(saved.run)) == (head.status, head.digest)
    assert ["commit", "commit", "read", "commit"] == documents.calls


async def test_the_stored_history_is_trimmed(documents: Documents) -> None:
    """The stored history grows to twice what is kept, then is trimmed to it: the document stays small."""
    writer = committer(documents)
    lengths: list[int] = []
    for n in range(2 * MAX_HISTORY + 2):
        await writer.apply([an_event(workflow_id="w", id="r", hlc=n)])
        lengths.append(len(documents.store.runs[KEY].history))

    assert [*range(1, 101), 50, 51] == lengths
    history = documents.store.runs[KEY].known.stored.head.history
    assert [*range(52, 102)] == [transition.version.hlc for transition in history]
    assert len(lengths) == len(documents.calls)


async def test_shards_are_announced_once(documents: Documents) -> None:
    """Once a process has announced its shards, commits leave the workflow's own document alone."""
    writer = committer(documents, stats_shards=500)

    for n in range(20):
        await writer.apply(a_life("w", f"r{n}"))

    assert [{"w": 500}] == [commit.announced for commit in documents.commits if commit.announced]
    assert 20 == sum(counts["total"] for counts in documents.store.stats.values())


async def test_a_day_is_tidied_once(documents: Documents) -> None:
    """Only the first commit that counts something of a day takes away what is over; others stay short."""
    documents.store = OverDays(Record(lambda: 0.0))
    today: datetime = TODAY

    def now() -> datetime:
        return today

    writer = committer(documents, now=now)
    await writer.apply([an_event(workflow_id="w", id="old", started_at=TODAY - timedelta(days=200))])
    for n in range(5):
        today = TODAY + (n // 3) * timedelta(days=1)
        begun = an_event(workflow_id="w", id=f"r{n}", status=RunStatus.RUNNING, started_at=TODAY)
        await writer.apply([begun])

    forgets = [stats.forgets for commit in documents.commits for stats in commit.stats]
    assert [False, True, False, False, True, False] == [horizon is not None for horizon in forgets]


async def test_commits_change_as_many_fields_as_a_document_takes(documents: Documents) -> None:
    """Runs share a commit until their stats change more fields of a document than Firestore takes."""
    writer = committer(documents)
    runs = [
        a_run(
            workflow_id="w",
            id=f"r{n}",
            started_at=TODAY - n // 4 * timedelta(days=1),
            duration_ms=1_000 * 4 ** (n % 4),
        )
        for n in range(4 * 90)
    ]

    outcomes = await writer.apply(list(map(an_event, runs)))
    changes = [stats.changes for commit in documents.commits for stats in commit.stats]

    assert [Outcome.APPLIED] * len(runs) == outcomes
    assert [180, 180] == [len(commit.runs) for commit in documents.commits]
    assert max(changes) <= MAX_STATS_CHANGES < sum(changes)


@pytest.mark.parametrize("is_there", [True, False])
async def test_old_events_where_runs_expire(documents: Documents, *, is_there: bool) -> None:
    """An event that is older than what is kept is refused, unless its run is found to be there."""
    old = TODAY - timedelta(days=40)
    begun, ended = (
        an_event(workflow_id="w", id="r", status=status, started_at=old, occurred_at=old, hlc=hlc)
        for hlc, status in enumerate([RunStatus.RUNNING, RunStatus.SUCCESS])
    )
    recent = an_event(workflow_id="w", id="recent", started_at=TODAY, occurred_at=TODAY)
    if is_there:
        await committer(documents).apply([begun])
    writer = committer(documents, retention=Retention.of_days(30))
    documents.calls.clear()

    if is_there:
        assert [Outcome.APPLIED, Outcome.APPLIED] == await writer.apply([ended, recent])
        assert old + timedelta(days=30) == documents.store.runs[KEY].expires_at
    else:
        with pytest.raises(RunExpiredError, match="run 'r' of workflow 'w' is older than 30 days"):
            await writer.apply([ended, recent])

    assert (["read", "commit"] if is_there else ["read"]) == documents.calls


@pytest.mark.parametrize(
    ("there", "outcome"),
    [([0], Outcome.APPLIED), ([1], Outcome.STALE), ([0, 1], Outcome.DUPLICATE)],
    ids=["a newer event", "more history", "nothing new"],
)
async def test_what_a_merge_brings(documents: Documents, there: list[int], outcome: Outcome) -> None:
    """A merged run is applied where its event is newer, and a duplicate where its history is there too."""
    life = a_life("w", "r")
    folded = FoldedRun(event=life[1], history=tuple(map(Transition.of, life)))
    writer = committer(documents)
    await writer.apply([life[n] for n in there])

    assert [outcome] == await writer.merge([folded])
    head = documents.store.runs[KEY].known.stored.head
    assert [event.version for event in life] == [transition.version for transition in head.history]
    assert [Outcome.DUPLICATE] == await writer.merge([folded])


@pytest.mark.parametrize(
    ("runs", "payload", "sizes"),
    [(MAX_COMMIT_RUNS, 0, [500]), (MAX_COMMIT_RUNS + 1, 0, [500, 1]), (10, 700_000, [4, 4, 2])],
)
def test_commits_are_bounded(runs: int, payload: int, sizes: list[int]) -> None:
    """A commit has no more runs, and no more bytes, than Firestore and its emulator take."""
    result = {"x": "y" * payload}
    events = [an_event(a_run(workflow_id="w", id=f"r{n}", result=result)) for n in range(runs)]

    assert sizes == [len(commit) for commit in batches([*events, *events])]


def test_commits_are_bounded_with_their_histories() -> None:
    """What is known of superseded events counts among the bytes of a commit."""
    history = tuple(Transition.of(an_event(hlc=n)) for n in range(MAX_HISTORY))
    events = [an_event(workflow_id="w", id=f"r{n}") for n in range(MAX_COMMIT_RUNS)]

    earlier = {event.key: FoldedRun(event=event, history=history) for event in events}

    sizes = [len(commit) for commit in batches(events, earlier)]

    assert MAX_COMMIT_RUNS == sum(sizes)
    assert max(sizes) * history_bytes(MAX_HISTORY) <= MAX_COMMIT_BYTES


def test_a_run_that_no_document_holds() -> None:
    """A run that is larger than a document, with the longest history, is refused before any write."""
    run = a_run(workflow_id="w", id="large", result={"x": "y" * 700_000})
    large = an_event(run).model_copy(update={"run": run.model_copy(update={"error": "e" * 340_000})})

    with pytest.raises(WriteRefusedError, match="'large' of workflow 'w' takes 1"):
        list(batches([an_event(status=RunStatus.RUNNING), large]))
