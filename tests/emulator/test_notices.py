"""Dead letters of a real projector on the dashboard's page, until they are re-driven or thrown away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
from tests.unit.dashboard.site import opened_site

from run_log.core import Message, RunStatus, encode_event, utc_now
from run_log.projector import DeadLetter, HandledLetter, LeasedLetters, LetterChoice, discard, redrive
from run_log.projector.google_cloud import event_topic, leased_letters, pull
from run_log.testing import an_event

from .firestore_kit import OpenedService
from .projector_kit import provisioned_with_short_leases, until
from .pubsub_kit import RawPubSub

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

MENDED = encode_event(an_event(workflow_id="w/1", id="mended", status=RunStatus.SUCCESS))
POISON = [
    Message(data=b"no json"),
    Message(data=MENDED.data.replace(b'"event_id"', b'"event"'), attributes=MENDED.attributes),
]
PATIENCE = 60.0


@pytest.fixture
async def projected(emulator_environment: object) -> AsyncIterator[RawPubSub]:  # noqa: ARG001 - asked for first
    """Yield a Pub/Sub from which a projector pulls, wired as the command wires it."""
    raw = provisioned_with_short_leases()
    stop = asyncio.Event()
    running = asyncio.create_task(pull(raw.settings, stop=stop))
    yield raw
    stop.set()
    await running


async def test_from_poison_to_the_page_and_back(projected: RawPubSub, plain: OpenedService) -> None:
    """Poison is on the page, each message once, until it is repaired or thrown away; then it is not."""
    raw, told = projected, list[HandledLetter]()

    async with opened_site(plain, now=utc_now) as site:

        async def letters_on_page() -> list[list[str]]:
            page = await site.get("/operations")
            return page.table("letters") if page.all("table", "letters") else []

        async def shows(*counts: tuple[str, str]) -> bool:
            return set(counts) == {(row[0], row[1]) for row in await letters_on_page()}

        assert await shows()
        raw.publish([*POISON, POISON[0]])
        await until(lambda: shows(("undecodable", "2"), ("invalid_event", "1")))
        rows = {row[0]: row for row in await letters_on_page()}
        ids = await ids_by_reason(raw, 3)
        async with leased(raw) as letters, event_topic(raw.settings) as topic:
            choice = LetterChoice(ids=ids["invalid_event"])
            await redrive(letters, topic, choice, tell=told.extend, repaired=MENDED.data)
        after_redrive = await letters_on_page()
        async with leased(raw) as letters:
            await discard(letters, LetterChoice(ids=ids["undecodable"]), tell=told.extend)
        after_discard = await letters_on_page()

    assert ("not known", "mended") == (rows["undecodable"][3], rows["invalid_event"][3])
    assert [["undecodable", "2"]] == [row[:2] for row in after_redrive]
    assert [] == after_discard
    assert ["discarded", "discarded", "redriven"] == sorted(one.outcome.value for one in told)
    await until(partial(is_there, plain))


def leased(raw: RawPubSub) -> AbstractAsyncContextManager[LeasedLetters]:
    """Lease the dead letters as the commands do; all that are looked for are there."""
    return leased_letters(raw.settings, quiet_seconds=PATIENCE)


async def ids_by_reason(raw: RawPubSub, count: int) -> dict[str, frozenset[str]]:
    """Return the ids of *count* letters."""
    found: list[DeadLetter] = []
    async with leased(raw) as letters:
        while len(found) < count:
            found += await letters.more()
    return {
        reason: frozenset(letter.message_id for letter in found if letter.reason == reason)
        for reason in {letter.reason for letter in found}
    }


async def is_there(store: OpenedService) -> bool:
    """Return whether the repaired event is projected."""
    return await store.get_run("w/1", "mended") is not None
