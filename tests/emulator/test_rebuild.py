"""Rebuilds from each source into a fresh root collection: equal, and safe beside writers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from run_log.core import ConfigurationError, RunEvent, RunStatus, Settings, encode_event
from run_log.core.fields import STORED
from run_log.core.ids import document_id
from run_log.projector.rebuild import (
    FromArchive,
    FromRoot,
    FromSubscription,
    RebuildSource,
    RebuildState,
    RebuildWork,
    Rebuilt,
    RejectsFile,
    rebuild,
)
from run_log.projector.rebuild.sources import replay_name
from run_log.stores import FirestoreRunLogService
from run_log.stores.firestore import Connection, FirestoreRoot
from run_log.stores.firestore.client import run_path
from run_log.testing import a_run, an_event

from .pubsub_kit import RawPubSub
from .rebuild_kit import ANEW, LIVE, archived, differences, lives, service, total

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]


async def run_rebuild(
    source: RebuildSource, folder: Path, *, into: str = ANEW, settings: Settings | None = None
) -> Rebuilt:
    """Rebuild into a root collection with a state of its own in *folder*."""
    name = f"{into}-{str(source).partition(':')[0]}"
    with closing(RebuildState(folder / f"{name}.state", source=str(source), into=into)) as state:
        rejects = RejectsFile(folder / f"{name}.rejects", goes_on=not state.is_new)
        work = RebuildWork(state, rejects, stop=asyncio.Event())
        return await rebuild(settings or Settings.from_env(), source, into=into, work=work)


@pytest.fixture
async def live() -> AsyncIterator[FirestoreRunLogService]:
    """Yield the live run log."""
    log = service(LIVE)
    yield log
    await log.close()


async def test_an_archive_equals_the_live_projection(live: FirestoreRunLogService, tmp_path: Path) -> None:
    """A rebuild from an archive, in another order and with repeats, equals the live projection in all."""
    events = lives(150, steps=(RunStatus.PENDING, RunStatus.RUNNING))
    await live.apply(events)
    shuffled = random.Random(2).sample([*events, *events[::5]], len(events) * 6 // 5)
    folder = archived(tmp_path / "archive", shuffled)

    done = await run_rebuild(FromArchive(path=str(folder)), tmp_path)

    assert (True, 540, 150, 0) == (done.complete, done.events, done.runs, done.rejects)
    assert [] == await differences(LIVE, ANEW)


async def test_another_root_is_copied(live: FirestoreRunLogService, tmp_path: Path) -> None:
    """A rebuild from a root collection equals it document by document, counted anew, others left alone."""
    events = lives(500)
    await live.apply(events)
    beside = service("autopilot_runs_x")
    await beside.apply(lives(3))

    done = await run_rebuild(FromRoot(name=LIVE), tmp_path)

    assert (True, 500, 500, 0) == (done.complete, done.events, done.runs, done.rejects)
    assert [] == await differences(LIVE, ANEW)
    again = await run_rebuild(FromRoot(name=LIVE), tmp_path)
    assert (True, 0, 500) == (again.complete, again.folded, again.runs)
    await beside.close()


@pytest.mark.parametrize("workflow_id", ["!", "\x01", "~", "/", "a" * 1_600, "ä", "__x__", "runs"])
async def test_any_id_is_copied(live: FirestoreRunLogService, tmp_path: Path, workflow_id: str) -> None:
    """Runs with any text as their id, and their workflow's, are copied, those of earlier versions too."""
    ids = [{"workflow_id": workflow_id, "id": run_id} for run_id in ("\x01 ", "! ", workflow_id)]
    events = [an_event() for _ in ids]
    await live.apply(
        [
            RunEvent.model_validate({**dict(event), "run": {**dict(event.run), **own}}, context=STORED)
            for event, own in zip(events, ids, strict=True)
        ]
    )

    done = await run_rebuild(FromRoot(name=LIVE), tmp_path)

    assert (3, 0) == (done.runs, done.rejects)
    assert [] == await differences(LIVE, ANEW)


async def test_pages_are_in_order(live: FirestoreRunLogService) -> None:
    """Pages of any size give each run once; whoever goes on from a page's place has the others."""
    await live.apply(lives(25))
    beside = [service(name) for name in ("autopilot_run", "autopilot_runs_2", "b")]
    for other in beside:
        await other.apply(lives(2))
    connection = Connection(Settings.from_env().project, None)
    for size in (1, 3, 24, 25, 26):
        root = FirestoreRoot(connection, LIVE, page=size)
        found: list[tuple[str, str]] = []
        after: str | None = ""
        while after is not None:
            page = await root.page(after)
            found += [run.event.key for run in page.runs]
            after = page.after

        assert 25 == len(found)
        assert found == sorted(found)
    await asyncio.gather(connection.close(), *(other.close() for other in beside))


async def test_what_pubsub_retains(live: FirestoreRunLogService, tmp_path: Path) -> None:
    """A rebuild hears what was acknowledged long ago, leaves the live subscription alone, and tidies up."""
    raw, events = retaining(), lives(60)
    raw.publish([encode_event(event) for event in events])
    raw.take(len(events))
    raw.publish([encode_event(an_event(id="waits"))])
    await live.apply([*events, an_event(id="waits")])

    done = await run_rebuild(FromSubscription(until_idle=3), tmp_path)

    assert (True, 121, 61) == (done.complete, done.events, done.runs)
    assert ["w/0", "w/1", "w/2", "workflow-1"] == await workflows(ANEW)
    assert 1 == len(raw.take(1))
    assert replay_name(ANEW) not in subscriptions(raw)


async def test_a_kept_subscription(tmp_path: Path) -> None:
    """A rebuild that keeps its subscription can be gone on with; so can one that has let go of it."""
    raw = retaining()
    raw.publish([encode_event(event) for event in lives(5)])

    first = await run_rebuild(FromSubscription(until_idle=3, keeps=True), tmp_path)
    kept = subscriptions(raw)
    second = await run_rebuild(FromSubscription(until_idle=0.1), tmp_path)
    left = subscriptions(raw)
    raw.publish([encode_event(event) for event in lives(6)[10:]])
    third = await run_rebuild(FromSubscription(until_idle=3), tmp_path)

    assert (10, 0, 2) == (first.folded, second.folded, third.folded)
    assert (True, True, True) == (first.complete, second.complete, third.complete)
    assert {replay_name(ANEW)} == kept - left
    assert replay_name(ANEW) not in subscriptions(raw)


async def test_a_topic_that_retains_nothing(tmp_path: Path) -> None:
    """Where the topic keeps nothing a rebuild says so, and what to do, rather than come to nothing."""
    raw = RawPubSub(Settings.from_env())
    with raw.connection.publisher() as publisher:
        publisher.create_topic(name=raw.connection.topic_path(raw.settings.topic))
    RawPubSub.provisioned()

    with pytest.raises(ConfigurationError, match="does not retain messages; set a retention"):
        await run_rebuild(FromSubscription(until_idle=1), tmp_path)


def retaining() -> RawPubSub:
    """Return the environment's Pub/Sub, whose topic keeps what was delivered."""
    raw = RawPubSub(Settings.from_env())
    name = raw.connection.topic_path(raw.settings.topic)
    with raw.connection.publisher() as publisher:
        # The emulator heeds no retention that comes later.
        publisher.create_topic(request={"name": name, "message_retention_duration": timedelta(days=7)})
    return RawPubSub.provisioned()


def subscriptions(raw: RawPubSub) -> set[str]:
    """Return the ids of all subscriptions."""
    with raw.connection.subscriber() as subscriber:
        found = subscriber.list_subscriptions(project=f"projects/{raw.connection.project}")
        return {each.name.rpartition("/")[2] for each in found}


async def workflows(root: str) -> list[str]:
    """Return the workflows of a root collection."""
    log = service(root)
    found, _ = await log.list_workflows()
    await log.close()
    return [stats.workflow_id for stats in found]


async def test_a_live_writer_into_the_new_root(live: FirestoreRunLogService, tmp_path: Path) -> None:
    """While a root is copied, a projector that writes events into the copy loses and doubles nothing."""
    steps = (RunStatus.PENDING, RunStatus.RUNNING)
    events = lives(300, steps=steps)
    per_run = len(steps) + 1
    # The old root has heard some of each run, the projector of the new one hears some others, and some twice.
    await live.apply([event for index, event in enumerate(events) if index % per_run < 2])
    heard = [event for index, event in enumerate(events) if index % per_run >= 1]
    projector, whole = service(ANEW), service("whole")
    await whole.apply(events)
    random.Random(3).shuffle(heard)

    async def project() -> None:
        for start in range(0, len(heard), 50):
            await projector.apply(heard[start : start + 50])

    done, _ = await asyncio.gather(run_rebuild(FromRoot(name=LIVE), tmp_path), project())

    assert (True, 300) == (done.complete, done.events)
    assert [] == await differences("whole", ANEW)
    await asyncio.gather(projector.close(), whole.close())


async def test_long_histories_are_merged(live: FirestoreRunLogService, tmp_path: Path) -> None:
    """Of a run with more states than are kept, the copy has the newest, like one that heard them all."""
    events = [an_event(id="long", status=RunStatus.RUNNING) for _ in range(130)]
    projector, whole = service(ANEW), service("whole")
    await live.apply(events[:90])
    await projector.apply(events[30:])
    await whole.apply(events)

    await run_rebuild(FromRoot(name=LIVE), tmp_path)

    assert [] == await differences("whole", ANEW)
    history = await projector.get_history("workflow-1", "long")
    assert [event.version for event in events[-50:]] == [line.version for line in history]
    await asyncio.gather(projector.close(), whole.close())


async def test_documents_of_other_times(live: FirestoreRunLogService, tmp_path: Path) -> None:
    """A run stored without a version is copied and counted; a damaged document is rejected and named."""
    await live.apply([an_event(id="good"), an_event(id="bad"), an_event(id="bare"), an_event(id="worse")])
    connection = Connection(Settings.from_env().project, None)
    client = connection.client()
    references = {
        name: client.document(run_path(LIVE, ("workflow-1", name))) for name in ("bad", "bare", "worse")
    }
    bare: dict[str, Any] = (await references["bare"].get()).to_dict()
    del bare["projection"]
    await references["bare"].set(bare)
    await references["bad"].update({"started_at": "yesterday"})
    await references["worse"].update({"projection.hlc": -5})

    done = await run_rebuild(FromRoot(name=LIVE), tmp_path)

    anew = service(ANEW)
    runs, _ = await anew.list_runs("workflow-1")
    assert ["bare", "good"] == sorted(run.id for run in runs)
    assert (2, 2) == (done.runs, done.rejects)
    rejects = (tmp_path / f"{ANEW}-root.rejects").read_text()
    assert [True, True] == [f"workflow-1/runs/{name}" in rejects for name in ("bad", "worse")]
    assert [1] == [line.version.attempt for line in await anew.get_history("workflow-1", "bare")]
    await asyncio.gather(connection.close(), anew.close())


async def test_expired_runs_are_counted_and_not_seen(tmp_path: Path) -> None:
    """With a retention old events are folded all the same; their runs have expired, as in the live one."""
    now = datetime.now(UTC)
    settings = Settings.from_env().model_copy(update={"retention_days": 30})
    then = now - timedelta(days=100)
    live = service(LIVE, retention_days=30, now=lambda: then)
    old = [
        an_event(a_run(id=f"old{number}", status=status, started_at=then), occurred_at=then)
        for number in range(5)
        for status in (RunStatus.RUNNING, RunStatus.SUCCESS)
    ]
    waiting = an_event(a_run(id="waits", status=RunStatus.PAUSED, started_at=then), occurred_at=then)
    new = an_event(a_run(id="new", started_at=now), occurred_at=now)
    await live.apply([*old, waiting])
    today = service(LIVE, retention_days=30)
    await today.apply([new])
    folder = archived(tmp_path / "archive", [new, waiting, *reversed(old)])

    for source, root in ((FromArchive(path=str(folder)), ANEW), (FromRoot(name=LIVE), "runs_3")):
        done = await run_rebuild(source, tmp_path, into=root, settings=settings)

        anew = service(root)
        runs, _ = await anew.list_runs("workflow-1")
        assert ["new", "waits"] == sorted(run.id for run in runs)
        assert {"total": 7, "successful": 6} == await anew.get_stats("workflow-1")
        assert (7, 6, 0) == (done.runs, done.expired, done.rejects)
        assert [] == await differences(LIVE, root)
        await anew.close()
    await asyncio.gather(live.close(), today.close())


async def test_expiring_beside_a_writer() -> None:
    """A run that gets a new state while it is to expire is read again, and nothing it says is lost."""
    days = 36_500  # a run that has expired by the machine's clock takes no new state
    log = service(ANEW)
    await log.apply([an_event(id=f"r{number}") for number in range(3)])
    root = FirestoreRoot(Connection(Settings.from_env().project, None), ANEW)

    changed, (expired, after) = await asyncio.gather(
        log.apply([an_event(id="r1", status=RunStatus.PAUSED, attempt=2)]), root.expire_page(days)
    )

    assert (1, None) == (len(changed), after)
    assert expired in {2, 3}
    seen = await log.get_run("workflow-1", "r1")
    assert seen is not None
    assert RunStatus.PAUSED is seen.status
    assert (0, None) == await root.expire_page(days)
    await asyncio.gather(log.close(), root.close())


def test_the_first_place_is_before_all_ids() -> None:
    """No document id of ours comes before the place where the first page begins."""
    assert "\x01" < min(document_id(text) for text in ("\x00", "\x01", " ", "!", "%", "/"))


async def test_a_root_that_is_empty(tmp_path: Path) -> None:
    """A root collection whose workflows have no runs any more gives none, and that is no error."""
    connection = Connection(Settings.from_env().project, None)
    await connection.client().document(f"{LIVE}/w").set({"workflow_id": "w", "total": 3})
    await connection.close()

    done = await run_rebuild(FromRoot(name=LIVE), tmp_path)

    assert (True, 0, 0) == (done.complete, done.events, done.runs)
    assert 0 == await total(ANEW)
