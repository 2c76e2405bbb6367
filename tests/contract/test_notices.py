from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from run_log.core import RunStatus
from run_log.stores import RunLogService
from run_log.stores.notices import DEAD_LETTERS_KEPT, DeadLetterNotice, Notice, NoticeKind, VerifyNotice
from run_log.testing import a_run

from .adapters import every_adapter
from .harness import Harness, save

LETTER, VERIFICATION = NoticeKind.DEAD_LETTER, NoticeKind.VERIFICATION
SECOND = timedelta(seconds=1)
LONGEST = "k" * 2_000


def letter(at: datetime, error: str = "why") -> DeadLetterNotice:
    """Return the notice of a dead letter."""
    return DeadLetterNotice(
        at=at, reason="undecodable", error=error, message_id="1", workflow_id="w/1", run_id=None
    )


def finding(at: datetime) -> VerifyNotice:
    """Return the notice of a recount in which a workflow differed."""
    return VerifyNotice(
        at=at, workflow_id=None, workflows=3, runs=40, repaired=1, differing=1, first=("w/1",)
    )


def store_of(harness: Harness) -> RunLogService:
    """Return where the notices are kept."""
    assert isinstance(harness.store, RunLogService)
    return harness.store


async def texts(store: RunLogService, kind: NoticeKind = LETTER, most: int = 100) -> Sequence[object]:
    """Return what is read."""
    return await store.read_notices(kind, most)


async def test_none(harness: Harness) -> None:
    """A run log that nobody has told anything has no notices, and reading makes none."""
    found = await harness.service.get_notices()

    assert ((), None) == (found.dead_letters, found.verified)
    assert ([], None) == await harness.service.list_workflows()


@every_adapter
async def test_what_is_told_is_read(harness: Harness) -> None:
    """What a projector and a recount tell comes back equal, whichever service is asked."""
    at = harness.clock()
    first, second = letter(at), letter(at + SECOND, "zeile: \u00e4\u2028\x00 '\"<b>")
    await store_of(harness).put_notices(LETTER, [first.stored("1"), second.stored("2")])
    await store_of(harness).put_notices(VERIFICATION, [finding(at).stored()])

    found = await harness.service.get_notices()

    assert ((second, first), finding(at)) == (found.dead_letters, found.verified)


async def test_the_latest_of_a_key(harness: Harness) -> None:
    """A notice replaces the one with its key, and no other: repeats change nothing."""
    store, at = store_of(harness), harness.clock()
    await store.put_notices(LETTER, [letter(at, "old").stored("1"), letter(at, "other").stored("2")])
    await store.put_notices(VERIFICATION, [Notice(key="1", at=at, text="{}")])
    for _ in range(2):
        await store.put_notices(LETTER, [letter(at + SECOND, "new").stored("1")])

    found = await harness.service.get_notices()

    assert ["new", "other"] == [one.error for one in found.dead_letters]
    assert ["{}"] == await texts(store, VERIFICATION)


async def test_the_newest(harness: Harness) -> None:
    """As many as are asked for are read, those that were made last first."""
    store, at = store_of(harness), harness.clock()
    notices = [Notice(key=str(number), at=at + number * SECOND, text=str(number)) for number in range(12)]
    await store.put_notices(LETTER, notices[::2])
    await store.put_notices(LETTER, notices[1::2])

    assert [str(number) for number in range(11, 6, -1)] == await texts(store, most=5)


async def test_removed(harness: Harness) -> None:
    """What is removed is gone, and only that; what is not there need not be removed."""
    store, at = store_of(harness), harness.clock()
    keys = ["1", "a/b", "..", "__x__", LONGEST, f"{LONGEST}k"]
    await store.put_notices(LETTER, [Notice(key=key, at=at, text=key[-3:]) for key in keys])
    await store.put_notices(VERIFICATION, [Notice(key="1", at=at, text="stays")])

    await store.remove_notices(LETTER, [*keys[:-1], "never"])
    left = await texts(store)
    await store.remove_notices(LETTER, keys)
    await store.remove_notices(LETTER, [])

    assert (["kkk"], [], ["stays"]) == (left, await texts(store), await texts(store, VERIFICATION))


async def test_many(harness: Harness) -> None:
    """As many as there may be are kept and removed in one call."""
    store, at = store_of(harness), harness.clock()
    notices = [Notice(key=str(number), at=at, text="x" * 2_000) for number in range(900)]

    await store.put_notices(LETTER, notices)
    kept = await texts(store, most=1_000)
    await store.remove_notices(LETTER, [notice.key for notice in notices])

    assert (900, []) == (len(kept), await texts(store))


async def test_they_expire(harness: Harness) -> None:
    """The notice of a dead letter goes with the letter, after seven days; that of a recount stays."""
    store, at = store_of(harness), harness.clock()
    await store.put_notices(LETTER, [letter(at).stored("1"), letter(at + SECOND).stored("2")])
    await store.put_notices(VERIFICATION, [finding(at).stored()])

    harness.clock.ahead = DEAD_LETTERS_KEPT
    found = await harness.service.get_notices()
    await store.put_notices(LETTER, [letter(at + 2 * SECOND).stored("3")])
    later = await harness.service.get_notices()

    assert [at + SECOND] == [one.at for one in found.dead_letters]
    assert [at + 2 * SECOND, at + SECOND] == [one.at for one in later.dead_letters]
    assert finding(at) == found.verified


async def test_what_cannot_be_read_is_left_out(harness: Harness) -> None:
    """A notice that says nothing is left out, and hides no other."""
    store, at = store_of(harness), harness.clock()
    await store.put_notices(LETTER, [letter(at).stored("1"), Notice(key="2", at=at, text='{"reason": 5}')])
    await store.put_notices(VERIFICATION, [Notice(key="last", at=at, text="no json")])

    found = await harness.service.get_notices()

    assert ((letter(at),), None) == (found.dead_letters, found.verified)


async def test_they_are_no_runs(harness: Harness) -> None:
    """Notices are in no list of workflows or runs, and in no inbox."""
    store, at = store_of(harness), harness.clock()
    await save(harness, a_run(workflow_id="w", status=RunStatus.SUCCESS))
    await store.put_notices(LETTER, [letter(at).stored("1")])
    await store.put_notices(VERIFICATION, [finding(at).stored()])

    workflows, _ = await harness.service.list_workflows()
    runs, _ = await harness.service.list_runs(None)
    stale, _ = await harness.service.list_stale(timedelta(0), now=at + SECOND)

    assert (["w"], ["w"]) == ([one.workflow_id for one in workflows], [run.workflow_id for run in runs])
    assert ([], []) == (stale, await harness.service.get_pending_runs())
