"""Streams of the dashboard over Firestore."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.dashboard.streaming import app_of, streaming

from run_log.core import RunEvent
from run_log.testing import an_event

from .firestore_kit import OpenedService

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]


def changes(first: int, last: int) -> list[RunEvent]:
    """Return an event of each of these runs."""
    return [an_event(id=f"r{number}", hlc=number) for number in range(first, last)]


async def test_streams_go_on_after_cuts_and_on_other_servers(plain: OpenedService) -> None:
    """A stream tells of each change once, through cuts, on the server that it began on and on another."""
    app, other = app_of(plain), app_of(plain)
    seen: list[str] = []
    async with streaming(app) as stream:
        place = (await stream.next()).id
    for server in (app, other, app):
        await plain.apply(changes(len(seen), len(seen) + 4))
        async with streaming(server, last_event_id=place) as stream:
            for _ in range(4):
                event = await stream.event()
                seen.append(event.json["id"])
                place = event.id

    assert sorted(f"r{number}" for number in range(12)) == sorted(seen)


async def test_many_windows_see_the_same(plain: OpenedService) -> None:
    """However many look, each sees each run's newest state."""
    app = app_of(plain)

    async def look(number: int) -> set[str]:
        found: set[str] = set()
        async with streaming(app) as stream:
            await stream.next()
            begun.append(number)
            if len(begun) == 10:
                await plain.apply(changes(0, 20))
            while len(found) < 20:
                found.add((await stream.event()).json["id"])
        return found

    begun: list[int] = []
    expected = {f"r{number}" for number in range(20)}

    assert [expected] * 10 == await asyncio.gather(*map(look, range(10)))
