"""What a committer guesses, remembers and packs together, on documents that are held in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.simulation.documents import REFUSED, TODAY, DocumentStore
from tests.simulation.record import Record

from run_log.core import Outcome, RunExpiredError, RunStatus, Transition, WriteRefusedError
from run_log.core.clock import PROCESS_CLOCK
from run_log.core.history import MAX_HISTORY
from run_log.core.law import FoldedRun, fold, run_digest
from run_log.core.models import RunKey
from run_log.stores.committing.commits import (
    MAX_COMMIT_BYTES,
    MAX_COMMIT_RUNS,
    MAX_STATS_CHANGES,
    PART_RUNS,
    PART_WORKFLOWS,
    Commit,
    KnownRun,
    batches,
)
from run_log.stores.committing.committer import MAX_IN_FLIGHT, WARY_COMMITS, Committer, names_bytes
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


class SlowDocuments(Documents):
    """Documents that take long to say that a commit was made."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0
        self.most_under_way = 0

    async def commit(self, commit: Commit) -> Sequence[Any]:
        """See `ProjectionDocuments.commit`."""
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        try:
            marks = await super().commit(commit)
            for _ in range(100):
                await asyncio.sleep(0)
            return marks
        finally:
            self.under_way -= 1


class OvertakenDocuments(Documents):
    """Documents that the first commit reaches once another one is made."""

    def __init__(self) -> None:
        super().__init__()
        self.is_made = asyncio.Event()

    async def commit(self, commit: Commit) -> Sequence[Any]:
        """See `ProjectionDocuments.commit`."""
        if not self.calls:
            self.calls.append("overtaken")
            await self.is_made.wait()
        marks = await super().commit(commit)
        self.is_made.set()
        return marks


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


async def test_what_is_remembered_is_not_read(documents: Documents) -> None:
    """A committer that is wary reads the runs that it does not remember, and nothing where there are none."""
    writer = committer(documents)
    life = a_life("w", "r")
    await committer(documents).apply([life[0]])
    await writer.apply([life[1]])
    documents.calls.clear()

    await writer.apply([an_event(workflow_id="w", id="r")])

    assert ["commit"] == documents.calls


async def test_repeats_are_not_written(documents: Documents) -> None:
    """A repeat is a duplicate, within a call too. Alone it makes no commit where its run is remembered."""
    writer, other = committer(documents), committer(documents)
    event = an_event(workflow_id="w", id="r")

    assert [Outcome.APPLIED, Outcome.DUPLICATE] == await writer.apply([event, event])
    assert [Outcome.DUPLICATE] == await writer.apply([event])
    assert ["commit"] == documents.calls
    assert [[Outcome.DUPLICATE]] * 2 == [await other.apply([event]) for _ in range(2)]
    assert ["commit", "commit", "read"] == documents.calls


@pytest.mark.parametrize("results", [(1, 2), (2, 1)])
async def test_two_states_in_one_version(documents: Documents, results: tuple[int, int]) -> None:
    """Which of two states in one version is news is told by their own digests, as in a fold."""
    events = [an_event(workflow_id="w", id="r", result={"n": n}, hlc=5, event_id="e") for n in results]

    assert list(fold(None, events).outcomes) == await committer(documents).apply(events)


async def test_commits_of_one_call_are_under_way_together() -> None:
    """Two commits of a call are under way at a time. Where one fails, the call first waits for the other."""
    documents = SlowDocuments()
    result = {"x": "y" * 700_000}

    await committer(documents).apply([an_event(id=f"r{n}", result=result) for n in range(12)])
    assert (MAX_IN_FLIGHT, 0) == (documents.most_under_way, documents.under_way)
    with pytest.raises(WriteRefusedError):
        await committer(documents).apply(
            [an_event(id=name, result=result) for name in (REFUSED, *map(str, range(7)))]
        )

    assert 0 == documents.under_way
    assert 12 + 4 == documents.store.stats["workflow-1", 0]["total"]


async def test_a_batch_of_many_workflows_is_under_way_in_parts() -> None:
    """A batch of many workflows is several commits under way together, of which each workflow is in one."""
    documents = SlowDocuments()
    events = [an_event(workflow_id=f"w{n % 10}", id=f"r{n}") for n in range(10 * PART_RUNS)]

    assert [Outcome.APPLIED] * len(events) == await committer(documents, known_runs=len(events)).apply(events)

    assert MAX_IN_FLIGHT == documents.most_under_way
    assert [1] * 10 == list(Counter(w.workflow_id for c in documents.commits for w in c.stats).values())
    assert [PART_RUNS] * 10 == [documents.store.stats[f"w{n}", 0]["total"] for n in range(10)]


async def test_a_call_is_sent_before_the_next_commit_is_made() -> None:
    """What takes a few turns of the event loop to be sent is sent before the commit after it is made."""
    sent: list[int] = []

    class SentLater(Documents):
        async def commit(self, commit: Commit) -> Sequence[Any]:
            self.calls.append("made")

            async def send() -> Sequence[Any]:
                await asyncio.create_task(asyncio.sleep(0))
                self.calls.append("sent")
                sent.append(len(commit.runs))
                return self.store.apply(commit)

            return await asyncio.create_task(send())

    documents = SentLater()
    await committer(documents, known_runs=1_000).apply(
        [an_event(workflow_id=f"w{n}", id="r") for n in range(2 * PART_RUNS)]
    )

    assert ["made", "sent"] * 2 == documents.calls
    assert [PART_RUNS] * 2 == sent


async def test_commits_are_metered(
    documents: Documents, metered: Callable[[], Counter[tuple[str, ...]]]
) -> None:
    """Each try of a commit is counted and timed by how it ended; the runs and anomalies of those made are."""
    before = metered()
    life = a_life("w", "r")

    await committer(documents).apply([life[0]])
    await committer(documents).apply([life[1]])
    again = an_event(workflow_id="w", id="other", status=RunStatus.RUNNING, hlc=PROCESS_CLOCK.tick() + HOUR)
    await committer(documents).apply([*a_life("w", "other"), again])
    with pytest.raises(WriteRefusedError):
        await committer(documents).apply([an_event(workflow_id="w", id=REFUSED)])

    told = metered() - before
    tries = {"committed": 3, "guess_refused": 1, "failed": 1}
    for name in ("run_log.store.commits", "run_log.store.commit.duration"):
        assert tries == {outcome: told[name, outcome] for outcome in tries}
    assert 3 == told["run_log.store.commit.runs",]
    assert 1 == told["run_log.store.anomalies",]


async def test_commits_are_timed(documents: Documents, metric_reader: InMemoryMetricReader) -> None:
    """How long a commit took is the time from its call to the store's answer."""

    def seconds() -> float:
        data: Any = metric_reader.get_metrics_data()
        scopes = (
            [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        )
        metrics = [metric for scope in scopes for metric in scope.metrics]
        durations = [metric for metric in metrics if metric.name == "run_log.store.commit.duration"]
        total: float = sum(point.sum for metric in durations for point in metric.data.data_points)
        return total

    before = seconds()
    now = iter([1_000.0, 1_064.0]).__next__

    await Committer(documents, patience=Patience(), now=now, wall_now=lambda: TODAY).apply(a_life())

    assert 64 == pytest.approx(seconds() - before)


async def test_a_memory_of_one_run(documents: Documents) -> None:
    """A committer that remembers one run only is slower, never wrong; guessing wrong once, it reads first."""
    forgetful = committer(documents, known_runs=1)
    lives = [a_life("w", f"r{n}") for n in range(4)]
    for step in range(2):
        for life in lives:
            await forgetful.apply([life[step]])

    assert Counter({"read": 4, "commit": 4 * 2 + 1}) == Counter(documents.calls)
    assert {"total": 4, "successful": 4, "running": 0, "success": 4} == documents.store.stats["w", 0]


async def test_a_second_try_goes_by_what_the_first_one_has_read(documents: Documents) -> None:
    """Where a guess was wrong, the runs are read once, however few of them are remembered."""
    lives = [a_life("w", f"r{n}") for n in range(3)]
    await committer(documents).apply([life[0] for life in lives])
    documents.calls.clear()

    await committer(documents, known_runs=1).apply([life[1] for life in lives])

    assert ["commit", "read", "commit"] == documents.calls


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


async def test_a_save_that_was_overtaken_stays_the_older_one() -> None:
    """Of two saves that are under way together the one that began last is the newest state, in any order."""
    documents = OvertakenDocuments()
    writer = committer(documents)
    saves = [
        an_event(workflow_id="w", id="r", status=status) for status in (RunStatus.RUNNING, RunStatus.FAILED)
    ]

    await asyncio.gather(*map(writer.save, saves))

    assert ["overtaken", "commit", "commit", "read", "commit"] == documents.calls
    head = documents.store.runs[KEY].known.stored.head
    assert [event.version for event in saves] == [transition.version for transition in head.history]


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


@pytest.mark.parametrize(("shards", "announced"), [(1, []), (500, [{"w0": 500}, {"w1": 500}])])
async def test_shards_are_announced_once(
    documents: Documents, shards: int, announced: list[dict[str, int]]
) -> None:
    """Once a process has announced its shards, commits leave the workflow's own document alone."""
    writer = committer(documents, stats_shards=shards)

    for n in range(20):
        await writer.apply(a_life(f"w{n % 2}", f"r{n}"))

    assert announced == [commit.announced for commit in documents.commits if commit.announced]
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
    assert names_bytes(("w",)) == writer._tidied.data_bytes  # pyright: ignore[reportPrivateUsage] - what is held


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


@pytest.mark.parametrize("retention", [Retention.of_days(30), None])
async def test_what_was_deleted_meanwhile_is_not_written_by_memory(
    documents: Documents, retention: Retention | None
) -> None:
    """A run that may have expired since it was remembered is read first: its document may be gone."""
    documents.store = OverDays(Record(lambda: 0.0))
    today: datetime = TODAY
    writer = committer(documents, retention=retention, now=lambda: today)
    await committer(documents, retention=Retention.of_days(30)).apply(
        [an_event(workflow_id="w", id="r", hlc=2)]
    )
    await writer.apply([an_event(workflow_id="w", id="r", hlc=1)])
    assert ["commit", "commit", "read", "commit"] == documents.calls
    today += timedelta(days=31)
    documents.store.runs.clear()
    documents.calls.clear()

    assert [Outcome.APPLIED] == await writer.apply([an_event(workflow_id="w", id="r", started_at=today)])
    assert ["read", "commit"] == documents.calls


async def test_what_is_about_to_be_deleted_takes_nothing_new(documents: Documents) -> None:
    """A run that has expired and is there takes no event any more; a repeat asks nothing of it."""
    life = a_life("w", "r")
    await committer(documents).apply(life)
    documents.store.expire()

    assert [Outcome.DUPLICATE] == await committer(documents).apply([life[1]])
    with pytest.raises(RunExpiredError, match="run 'r' of workflow 'w' expired at"):
        await committer(documents).apply([an_event(workflow_id="w", id="r")])


async def test_an_earlier_run_of_that_id_does_not_come_back(documents: Documents) -> None:
    """A state that is as old as what was deleted is refused where the run that is there began later."""
    old = TODAY - timedelta(days=40)
    writer = committer(documents, retention=Retention.of_days(30))
    await writer.apply([an_event(workflow_id="w", id="r", status=RunStatus.RUNNING)])

    with pytest.raises(RunExpiredError, match="it may be of an earlier run with that id"):
        await writer.apply([an_event(workflow_id="w", id="r", started_at=old, occurred_at=old)])


@pytest.mark.parametrize(("hlc", "stays"), [(1, True), (3, False)], ids=["an older event", "a new state"])
async def test_who_keeps_all_runs(documents: Documents, *, hlc: int, stays: bool) -> None:
    """Without a retention, a run that was to expire still does until it gets a new state."""
    await committer(documents, retention=Retention.of_days(30)).apply(
        [an_event(workflow_id="w", id="r", hlc=2)]
    )
    expires_at = documents.store.runs[KEY].expires_at
    assert expires_at is not None

    await committer(documents).apply([an_event(workflow_id="w", id="r", hlc=hlc)])

    assert (expires_at if stays else None) == documents.store.runs[KEY].expires_at


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


@pytest.mark.parametrize(
    ("workflows", "sizes"),
    [
        ([500], [500]),
        ([PART_RUNS, PART_RUNS], [2 * PART_RUNS]),
        ([PART_RUNS, 1, PART_RUNS], [PART_RUNS + 1, PART_RUNS]),
        ([1] * (2 * PART_RUNS), [PART_RUNS, PART_RUNS]),
        ([PART_RUNS // PART_WORKFLOWS, 300, 7], [PART_RUNS // PART_WORKFLOWS + 300, 7]),
    ],
)
def test_a_workflow_is_in_one_commit(workflows: list[int], sizes: list[int]) -> None:
    """A batch of many runs of several workflows is several commits, and none divides a workflow."""
    events = [
        an_event(workflow_id=f"w{number:03}", id=f"r{n}")
        for n in range(500)
        for number, runs in enumerate(workflows)
        if n < runs
    ]

    commits = list(batches(events))

    assert sizes == [len(commit) for commit in commits]
    assert len(workflows) == sum(len({workflow_id for workflow_id, _ in commit}) for commit in commits)


def test_commits_are_bounded_with_their_histories() -> None:
    """What is known of superseded events counts among the bytes of a commit."""
    history = tuple(Transition.of(an_event(hlc=n)) for n in range(MAX_HISTORY))
    events = [an_event(workflow_id="w", id=f"r{n}") for n in range(MAX_COMMIT_RUNS)]

    earlier = {event.key: FoldedRun(event=event, history=history) for event in events}

    sizes = [len(commit) for commit in batches(events, earlier)]

    assert MAX_COMMIT_RUNS == sum(sizes)
    assert max(sizes) * history_bytes(MAX_HISTORY) <= MAX_COMMIT_BYTES


def test_a_run_that_no_document_holds() -> None:
    """A run that is larger than a document, with the longest history, is refused before its commit."""
    run = a_run(workflow_id="w", id="large", result={"x": "y" * 700_000})
    large = an_event(run).model_copy(update={"run": run.model_copy(update={"error": "e" * 340_000})})

    with pytest.raises(WriteRefusedError, match="'large' of workflow 'w' takes 1"):
        list(batches([an_event(status=RunStatus.RUNNING), large]))
