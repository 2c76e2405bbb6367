from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from run_log.core import (
    ConfigurationError,
    DeadLetterReason,
    Outcome,
    ReceivedMessage,
    RunEvent,
    StoreUnavailableError,
    UnreadableRunError,
    encode_event,
)
from run_log.projector import Fate, GroupCommit, GroupLimits, Projector
from run_log.projector.in_hand import decoded_size
from run_log.projector.projector import Projected
from run_log.stores import InMemoryRunLogService
from run_log.testing import ManualClock, a_life, an_event

from .doubles import (
    Letters,
    ScriptedStore,
    eventually,
    logged,
)
from .groups import BatchStore, Fates, Timer, make_group, no_sleep, received, some_runs, turns

# How batches are made


async def test_with_nothing_under_way_nobody_waits() -> None:
    """With nothing under way an event is projected at once, and all that was given at once is one batch."""
    store, seen = ScriptedStore(), Fates()
    group = make_group(store, limits=GroupLimits(gather_seconds=60), sleep=no_sleep)

    fates = [await group.settle(message) for message in received(*some_runs(3))]
    group.submit(received(*some_runs(200, first=3)), seen)
    await group.wait_quiet()

    assert [Fate.DONE] * 3 == fates
    assert (200, 0) == seen.counts()
    assert 3 + 1 == store.calls


@pytest.mark.parametrize(
    ("end", "batch", "sizes"),
    [("time", 500, [1, 5]), ("full", 3, [1, 3]), ("idle", 500, [1])],
)
async def test_while_a_batch_is_under_way_others_gather(end: str, batch: int, sizes: list[int]) -> None:
    """Others gather until their time is over, they are a full batch, or nothing is under way any more."""
    store, fates, timer = BatchStore(), Fates(), Timer()
    group = make_group(store, limits=GroupLimits(batch=batch, gather_seconds=7), sleep=timer)
    count = 4 if end == "full" else 6
    for message in received(*some_runs(count)):
        group.submit([message], fates)
        await turns()
    gathering = store.sizes
    if end == "time":
        timer.ring()
        await eventually(lambda: len(store.batches) > 1)

    before = store.sizes
    store.let()
    await group.wait_quiet()
    await group.close(0)

    assert [7] == timer.asked
    assert (sizes if end == "full" else [1]) == gathering
    assert sizes == before
    assert ([1, 3] if end == "full" else [1, 5]) == store.sizes
    assert (count, 0) == fates.counts()


async def test_batches_are_bounded() -> None:
    """No batch has more messages or bytes than it may, and no more are under way than may be."""
    events = some_runs(40)
    size = max(len(encode_event(event).data) for event in events)
    store, fates = BatchStore(), Fates()
    group = make_group(store, limits=GroupLimits(batch=10, batch_bytes=4 * size, in_flight=2))

    group.submit(received(*events), fates)
    await eventually(lambda: len(store.under_way) == 2)
    store.let()
    await group.wait_quiet()

    assert max(store.sizes) == 4
    assert 2 == store.most_under_way
    assert (40, 0) == fates.counts()


async def test_many_callers_share_few_commits() -> None:
    """Callers that settle one message each at the same time are folded into a few batches."""
    store = ScriptedStore()
    group = make_group(store)

    fates = await asyncio.gather(*(group.settle(message) for message in received(*some_runs(300))))

    assert [Fate.DONE] * 300 == fates
    assert store.calls <= 4
    assert {"total": 300, "successful": 300} == await store.get_stats("workflow-1")


@settings(max_examples=40, deadline=None, phases=[Phase.generate])  # a seed cannot be shrunk
@given(seed=st.integers(0, 2**32), runs=st.integers(1, 12), in_flight=st.integers(1, 4))
async def test_no_run_is_in_two_batches_at_once(seed: int, runs: int, in_flight: int) -> None:
    """However messages arrive and batches end, no run is in two batches under way; all is exact."""
    chance = random.Random(seed)
    events = [event for number in range(runs) for event in a_life(run_id=f"r{number}")] * 2
    chance.shuffle(events)
    store, fates = BatchStore(), Fates()
    group = make_group(store, limits=GroupLimits(batch=4, in_flight=in_flight, gather_seconds=0))
    waiting = received(*events)

    while waiting:
        count = chance.randint(1, 6)
        group.submit(waiting[:count], fates)
        del waiting[:count]
        store.let(chance.randint(0, 2))
        await turns(chance.randint(0, 10))
    store.let()
    await group.close(60)

    assert [] == store.overlaps
    assert store.most_under_way <= in_flight
    assert (len(events), 0) == fates.counts()
    assert {"total": runs, "successful": runs} == await store.get_stats("workflow-1")


# How much is in hand


@pytest.mark.parametrize("by", [0, 1], ids=["messages", "bytes"])
async def test_full(by: int) -> None:
    """It is full with as many messages or bytes in hand as may be, and has room once they are settled."""
    messages = received(*some_runs(2))
    size = len(messages[0].data)
    most, left = (2, 1) if by == 0 else (size + 1, 1)
    store, fates = BatchStore(), Fates()
    group = make_group(store, limits=GroupLimits(messages=2) if by == 0 else GroupLimits(data_bytes=most))

    group.submit(messages[:1], fates)
    before = (group.is_full, group.progress.room_left[by])
    group.submit(messages[1:], fates)
    after = (group.is_full, group.progress.room_left[by])
    room = asyncio.create_task(group.room())
    await turns()
    waits = not room.done()
    store.let()
    await room
    await group.wait_quiet()

    assert ((False, left), (True, 0), True) == (before, after, waits)
    assert (False, most) == (group.is_full, group.progress.room_left[by])


async def test_full_while_the_store_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """While the store does not answer no more should come; afterwards what comes is projected."""
    store, fates, timer = ScriptedStore([StoreUnavailableError("away")]), Fates(), Timer()
    group = make_group(store, sleep=timer)
    first, second = received(*some_runs(2))

    group.submit([first], fates)
    await eventually(lambda: bool(fates.of))
    away = (group.is_full, group.store_trouble is not None)
    group.submit([second], fates)
    await turns()
    calls = store.calls
    timer.ring()
    await asyncio.wait_for(group.room(), 30)
    await group.wait_quiet()

    assert (True, True) == away
    assert 1 == calls
    assert {first.ack_id: Fate.RETURNED, second.ack_id: Fate.DONE} == fates.of
    assert (False, None) == (group.is_full, group.store_trouble)
    assert 1 == len(logged(caplog, "run_log_store_unavailable"))


# Poison, and ends


async def test_too_many_deliveries() -> None:
    """What was delivered too often is dead-lettered untried, beside others that are projected."""
    store, letters, fates = ScriptedStore(), Letters(), Fates()
    group = make_group(store, letters, GroupLimits(deliveries=45))
    tired, fresh = received(*some_runs(1), attempt=45), received(*some_runs(1, first=1), attempt=44)

    group.submit([*tired, *fresh], fates)
    await group.wait_quiet()

    assert (2, 0) == fates.counts()
    assert [(tired[0], DeadLetterReason.TOO_MANY_DELIVERIES)] == [letter[:2] for letter in letters.kept]
    assert "delivered 45 times" in letters.kept[0][2]
    assert {"total": 1, "successful": 1} == await store.get_stats("workflow-1")


@pytest.mark.parametrize("behind", [0, 9], ids=["by the projector's time", "by its publication"])
async def test_what_is_stamped_too_far_ahead(behind: int) -> None:
    """What is stamped more than a day ahead is dead-lettered alone, also by a projector that is behind."""
    day = timedelta(days=1)
    moment = datetime(2026, 3, 4, tzinfo=UTC)
    micros = int(moment.timestamp()) * 1_000_000 + day // timedelta(microseconds=1)
    fine, ahead = an_event(id="fine", hlc=micros), an_event(id="ahead", hlc=micros + 1)
    store, letters, fates = ScriptedStore(), Letters(), Fates()
    group = GroupCommit(Projector(store, now=lambda: moment - behind * day), letters)

    group.submit(received(fine, ahead, published_at=moment if behind else moment - 300 * day), fates)
    await group.wait_quiet()

    assert (2, 0) == fates.counts()
    assert [DeadLetterReason.CLOCK_AHEAD] == [letter[1] for letter in letters.kept]
    assert "stamped 1 day, 0:00:00.000001 ahead" in letters.kept[0][2]
    assert {"total": 1, "successful": 1} == await store.get_stats("workflow-1")


async def test_a_store_that_is_not_there_returns_everything() -> None:
    """Where the store needs somebody's action all is returned, and callers are told until it is opened."""
    store, fates = ScriptedStore([ConfigurationError("denied")]), Fates()
    group = make_group(store, limits=GroupLimits(batch=2, in_flight=1))
    (asked, late) = received(*some_runs(2, first=100))

    group.submit(received(*some_runs(5)), fates)
    with pytest.raises(ConfigurationError, match="denied"):
        await group.settle(asked)
    with pytest.raises(ConfigurationError, match="denied"):
        await group.failed()
    with pytest.raises(ConfigurationError, match="denied"):
        await group.settle(late)
    await group.close(60)
    calls, in_hand = store.calls, group.progress.in_hand
    assert not group.is_failed
    group.open()

    assert (0, 5) == fates.counts()
    assert (1, 0) == (calls, in_hand)
    assert Fate.DONE is await group.settle(late)


async def test_a_bug_here_ends_the_work_and_is_told() -> None:
    """An error that is no fault of store or event ends the work as failed, until it is opened again."""

    class Forgetful(Projector):
        async def project(self, events: Sequence[RunEvent]) -> list[Projected]:
            assert events
            return []

    group = GroupCommit(Forgetful(ScriptedStore()), Letters())
    with pytest.raises(ValueError, match="shorter"):
        await group.settle(received(*some_runs(1))[0])
    failed = group.is_failed
    group.open()

    assert (True, False) == (failed, group.is_failed)


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), MemoryError(), RecursionError()], ids=repr)
async def test_a_fault_of_the_dead_letters_returns_one_message(error: Exception) -> None:
    """An error of the dead letters that nobody foresaw returns the message that it came with, and is told."""
    store, fates = ScriptedStore(), Fates()
    group = make_group(store, Letters([error]))
    poison, *others = received(b"no json", *some_runs(5))

    group.submit([poison, *others], fates)
    await group.wait_quiet()
    trouble = group.dead_letter_trouble
    fate = await group.settle(poison)

    assert (5, 1) == fates.counts()
    assert Fate.RETURNED is fates.of[poison.ack_id]
    assert type(error).__name__ in str(trouble)
    assert (Fate.DONE, None) == (fate, group.dead_letter_trouble)


class FailingStore(InMemoryRunLogService):
    """Fails at what it is told to fail at, as nobody foresees."""

    def __init__(self, error: Exception, fails: Callable[[RunEvent], bool]) -> None:
        super().__init__()
        self.error = error
        self.fails = fails
        self.calls = 0

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""
        self.calls += 1
        if any(map(self.fails, events)):
            raise self.error
        return await super().apply(events)


def _nothing(_event: RunEvent) -> bool:
    return False


FAULTS = [
    RecursionError("deep"),
    MemoryError(),
    ValueError("secret"),
    KeyError("x"),
    UnreadableRunError("w", "r", "x"),
]


@pytest.mark.parametrize("error", FAULTS, ids=repr)
async def test_a_message_that_the_store_fails_at_stands_alone(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A message that makes the store fail is dead-lettered alone; the rest of its batch is projected."""
    store, letters, fates = FailingStore(error, lambda event: event.run.id == "r3"), Letters(), Fates()
    group = make_group(store, letters)

    group.submit(received(*some_runs(20)), fates)
    await group.wait_quiet()

    assert (20, 0) == fates.counts()
    assert ["write_refused"] == letters.reasons
    assert type(error).__name__ in letters.kept[0][2]
    assert [20] == [record["events"] for record in logged(caplog, "run_log_store_failed")]
    assert {"total": 19, "successful": 19} == await store.get_stats("workflow-1")
    assert (None, False) == (group.store_trouble, group.is_failed)
    assert "secret" not in str([vars(record) for record in caplog.records])


async def test_a_message_alone_that_the_store_fails_at_waits_for_another_one() -> None:
    """Whether store or message is at fault is known once the store takes another one: no guess is made."""
    store, letters = FailingStore(RecursionError(), lambda event: event.run.id == "r0"), Letters()
    group = make_group(store, letters)
    poison, good = received(*some_runs(2))

    early: list[Fate] = []
    for _ in range(3):
        await group.room()
        early.append(await group.settle(poison))
    await group.room()
    between = await group.settle(good)
    late = await group.settle(poison)

    assert [Fate.RETURNED] * 3 == early
    assert (Fate.DONE, Fate.DONE) == (between, late)
    assert [poison] == [letter[0] for letter in letters.kept]


async def test_a_store_that_fails_at_everything_costs_no_letter() -> None:
    """While the store fails at everything all is returned, health checks are told, and it begins anew."""
    store, letters, fates, timer = FailingStore(KeyError("x"), lambda _: True), Letters(), Fates(), Timer()
    group = make_group(store, letters, sleep=timer)

    group.submit(received(*some_runs(10)), fates)
    await group.wait_quiet()
    failed = (group.is_failed, group.is_full, str(group.store_trouble))
    await eventually(lambda: bool(timer.asked))
    store.fails = _nothing
    timer.ring()
    await group.room()
    again = (group.is_failed, await group.settle(received(*some_runs(1))[0]), group.store_trouble)

    assert (0, 10) == fates.counts()
    assert (True, True, "projecting failed with KeyError; see the log") == failed
    assert (False, Fate.DONE, None) == again
    assert [] == letters.kept


async def test_who_is_told_may_raise() -> None:
    """What is called with a message's fate may raise: the message is out of hand, and others go on."""
    store, fates = ScriptedStore(), Fates()
    group = make_group(store)
    bad, *good = received(*some_runs(4))

    def raises(_message: ReceivedMessage, _fate: Fate) -> None:
        raise RuntimeError("theirs")

    group.submit([bad], raises)
    group.submit(good, fates)
    await group.wait_quiet()

    assert (3, 0) == fates.counts()
    assert (0, 0) == (group.progress.in_hand, group.progress.in_hand_bytes)


DEEP_V0 = b"".join(
    (
        b'{"type":"run-log.run-state.v0","id":"r","workflow_id":"w","status":"running",',
        b'"trigger_type":"manual","started_at":"2026-01-01T00:00:00Z","trigger_data":{"a":%s}}',
    )
)


@pytest.mark.parametrize("depth", [300, 600, *range(880, 1_000, 4), 3_000, 100_000])
async def test_whatever_depth_a_body_has_it_gets_a_fate(depth: int) -> None:
    """A body of any depth is settled, as an event or as a dead letter, and so is the next one."""
    store, letters, fates = InMemoryRunLogService(), Letters(), Fates()
    group = make_group(store, letters)
    deep = DEEP_V0 % (b"[" * depth + b'"%s"' % (b"x" * 100_000) + b"]" * depth)

    group.submit(received(deep, *some_runs(1)), fates)
    await group.wait_quiet()

    assert (2, 0) == fates.counts()
    assert (await store.get_run("w", "r") is None) == bool(letters.kept)


async def test_large_bodies_are_decoded_one_at_a_time() -> None:
    """Bodies that take much memory once decoded are decoded as there is room for that, one at least."""
    store, fates = BatchStore(), Fates()
    events = [an_event(id=f"r{number}", result={"a": [{}] * 1_000}) for number in range(6)]
    size = decoded_size(encode_event(events[0]).data)
    group = make_group(store, limits=GroupLimits(decoded_bytes=2 * size + 1, gather_seconds=0))

    group.submit(received(*events), fates)
    await eventually(lambda: len(store.under_way) == 1)
    first = store.sizes
    store.let()
    await group.wait_quiet()
    huge = make_group(store, limits=GroupLimits(decoded_bytes=1))
    alone = await huge.settle(received(events[0])[0])

    assert [2] == first
    assert max(store.sizes) <= 2
    assert (6, 0) == fates.counts()
    assert Fate.DONE is alone


async def test_what_waits_undecoded_is_given_back() -> None:
    """What has not been decoded when work ends is returned, as all else."""
    store, fates = BatchStore(), Fates()
    group = make_group(store, limits=GroupLimits(decoded_bytes=1))

    group.submit(received(*some_runs(5)), fates)
    await eventually(lambda: len(store.under_way) == 1)
    await group.close(0)

    assert (0, 5) == fates.counts()


@settings(max_examples=50, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=5),
        max_leaves=20,
    )
)
@example({"a": 0})
def test_decoded_size_is_enough(value: object) -> None:
    """Decoded, a body takes no more memory than is reserved for it, a fixed sum aside."""
    body = json.dumps([value] * (20_000 // (1 + len(json.dumps(value))))).encode()
    tracemalloc.start()
    decoded = json.loads(body)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert decoded is not None
    assert taken <= decoded_size(body) + 4_096


async def test_closing_does_not_wait_for_a_store_that_is_away() -> None:
    """While the store does not answer nothing could be finished in time: all is returned at once."""
    store, fates, timer = ScriptedStore([StoreUnavailableError("away")]), Fates(), Timer()
    group = make_group(store, sleep=timer)
    first, second = received(*some_runs(2))
    group.submit([first], fates)
    await eventually(lambda: bool(fates.of))
    group.submit([second], fates)

    async with asyncio.timeout(30):
        await group.close(3_600)

    assert (0, 2) == fates.counts()


async def test_closing_gives_back_what_is_left() -> None:
    """What is not projected in time, under way or not, is returned; so is what comes afterwards."""
    store, letters, fates = BatchStore(), Letters(), Fates()
    group = make_group(store, letters, GroupLimits(batch=2, in_flight=2))
    done, *others, late = received(*some_runs(9))
    group.submit([done], fates)
    await eventually(lambda: len(store.under_way) == 1)
    store.let(1)
    await group.wait_quiet()
    group.submit(others, fates)
    await eventually(lambda: len(store.under_way) == 2)

    await group.close(0.01)
    group.submit([late], fates)

    assert (1, 8) == fates.counts()
    assert Fate.DONE is fates.of[done.ack_id]
    assert [] == store.under_way
    assert 0 == group.progress.in_hand
    # A body beyond the bound has room only where nothing else counts as decoded.
    assert group.progress.decode(-1, b"," * 2**21)


class LingeringStore(InMemoryRunLogService):
    """Takes a few turns to end what is cancelled, as a call to a server may."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = asyncio.Event()
        self.ending = asyncio.Event()

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            await turns(3)
        return await super().apply(events)


async def test_a_close_that_is_cancelled_gives_everything_back() -> None:
    """Cancelled while it ends what is under way, a close leaves nothing in hand that is never settled."""
    store, fates = LingeringStore(), Fates()
    group = make_group(store)
    group.submit(received(*some_runs(3)), fates)
    await store.entered.wait()
    closing = asyncio.create_task(group.close(0))
    await store.ending.wait()

    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await group.close(0)

    assert (0, 3) == fates.counts()
    assert 0 == group.progress.in_hand


# Progress


async def test_progress_stands_still_while_nothing_is_settled() -> None:
    """Stuck time is 0 with nothing in hand, grows though things arrive, and ends when something settles."""
    clock, store, fates = ManualClock(), BatchStore(), Fates()
    group = make_group(
        store, limits=GroupLimits(batch=1, in_flight=1), now=clock.monotonic, utc_now=clock.now
    )
    progress = group.progress
    clock.advance(100)
    idle = progress.stuck_for()

    stuck: list[float] = []
    for message in received(*some_runs(3)):
        group.submit([message], fates)
        stuck.append(progress.stuck_for())
        clock.advance(10)
    stuck.append(progress.stuck_for())
    await eventually(lambda: len(store.under_way) == 1)
    store.let(1)
    await eventually(lambda: len(fates.of) == 1)
    moved = progress.stuck_for()
    clock.advance(5)
    waiting = progress.stuck_for()
    store.let()
    await group.wait_quiet()
    clock.advance(1_000)

    assert 0 == idle
    assert [0, 10, 20, 30] == stuck
    assert (0, 5) == (moved, waiting)
    assert 0 == progress.stuck_for()


async def test_the_oldest_age_counts_from_publishing() -> None:
    """The lag is the age of the oldest message in hand since it was published, where that is known."""
    clock, store, fates = ManualClock(), BatchStore(), Fates()
    group = make_group(store, now=clock.monotonic, utc_now=clock.now)
    progress = group.progress
    idle = progress.oldest_age()
    hour_ago, minute_ago = (clock.now() - timedelta(seconds=seconds) for seconds in (3_600, 60))
    (unknown,) = received(*some_runs(1))
    (old,) = received(*some_runs(1, first=1), published_at=hour_ago)
    (new,) = received(*some_runs(1, first=2), published_at=minute_ago)
    (ahead,) = received(*some_runs(1, first=3), published_at=clock.now() + timedelta(days=1))

    ages: list[float] = []
    for message in (unknown, ahead, new, old):
        group.submit([message], fates)
        ages.append(progress.oldest_age())
    clock.advance(10)
    ages.append(progress.oldest_age())
    store.let()
    await group.wait_quiet()

    assert 0 == idle
    assert [0, 0, 60, 3_600, 3_610] == ages
    assert 0 == progress.oldest_age()
