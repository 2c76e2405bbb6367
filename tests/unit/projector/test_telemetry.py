from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from run_log.core import DeadLetterReason, StoreUnavailableError
from run_log.projector import GroupLimits
from run_log.testing import an_event

from .doubles import Letters, ScriptedStore
from .groups import Fates, make_group, received, some_runs

Metered = Callable[[], Counter[tuple[str, ...]]]


async def test_what_becomes_of_messages_is_metered(metered: Metered) -> None:
    """Events by outcome, dead letters by reason, what is given back and the batches are counted."""
    before = metered()
    store = ScriptedStore([StoreUnavailableError("away")])
    group = make_group(store, Letters(), GroupLimits(gather_seconds=0))
    newer, older = an_event(id="r", hlc=2), an_event(id="r", hlc=1)

    for events in ([newer], [newer], [newer, older, b"no json"]):
        group.submit(received(*events), Fates())
        await group.wait_quiet()
        while group.is_full:  # noqa: ASYNC110 - the pause after an outage has no event
            await asyncio.sleep(0)
    told = metered() - before

    assert 1 == told["run_log.projector.returned",]
    assert 1 == told["run_log.projector.events", "applied"]
    assert 1 == told["run_log.projector.events", "duplicate"]
    assert 1 == told["run_log.projector.events", "stale"]
    assert 1 == told["run_log.projector.dead_letters", DeadLetterReason.UNDECODABLE.value]
    assert 2 == told["run_log.projector.batch.events",]
    assert 0 == told["run_log.projector.in_hand",]


async def test_what_is_in_hand_and_how_old_it_is_are_metered(metered: Metered) -> None:
    """While messages are in hand their number and the age of the oldest are told; afterwards neither."""
    before = metered()
    store = ScriptedStore()
    store.gate.clear()
    group = make_group(store)
    hour_ago = datetime.now(UTC) - timedelta(hours=1)

    group.submit(received(*some_runs(3), published_at=hour_ago), Fates())
    await store.entered.wait()
    busy = metered()
    store.gate.set()
    await group.wait_quiet()
    idle = metered()

    assert 3 == busy["run_log.projector.in_hand",] - before["run_log.projector.in_hand",]
    assert 3_600 <= busy["run_log.projector.lag",] < 3_700
    assert before["run_log.projector.in_hand",] == idle["run_log.projector.in_hand",]
    assert idle["run_log.projector.lag",] < 3_600


async def test_a_store_that_answers_for_fewer_settles_nothing_twice() -> None:
    """A store that answers for fewer events than it was given ends the work, and everything is given back."""

    class Forgetful(ScriptedStore):
        async def apply(self, events: object) -> list[object]:  # type: ignore[override] # what it gets wrong
            assert events
            return []

    fates = Fates()
    group = make_group(Forgetful())

    group.submit(received(*some_runs(3)), fates)
    await group.wait_quiet()

    assert (0, 3) == fates.counts()
