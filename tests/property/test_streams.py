"""Streams of changes have no gap and no repeat, wherever and however often they are cut."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_log.core import RunEvent, Version
from run_log.core.models import RunKey
from run_log.dashboard.streams import Changes, EventStream, StreamTimes, Subscription, json_event
from run_log.stores import InMemoryRunLogService
from run_log.testing import a_run

PATIENCE = 60.0
SERVERS = 2

Save = tuple[int, int]
"""Which run changes, and how often."""
Read = tuple[int, int, int]
"""Which client reads, how much it gets before it is cut off, and to which server it comes back."""


class Client:
    """Follows the changes of all runs from its first moment on, through cuts."""

    def __init__(self, servers: Sequence[Changes]) -> None:
        self._servers = servers
        self._updates: Subscription | None = None
        self._cursor: str | None = None
        self.missing: dict[RunKey, Version] = {}
        self.seen: list[tuple[RunKey, Version]] = []

    async def connect(self, server: int) -> None:
        """Go on after the last change that was seen, with another connection."""
        if self._updates is not None:
            await self._updates.close()
        self._updates = await self._servers[server].since(self._cursor)
        self._cursor = self._updates.cursor

    async def read(self, most: int) -> None:
        """Take what comes next, or no more than so many of it, as one that is cut off then."""
        assert self._updates is not None
        for each in (await self._updates.more())[:most]:
            update = each.update
            self._cursor = update.cursor
            self.seen.append((update.run.key, update.version))
            if self.missing.get(update.run.key) == update.version:
                del self.missing[update.run.key]

    async def close(self) -> None:
        """Be gone."""
        if self._updates is not None:
            await self._updates.close()


async def follow(steps: Sequence[Save | Read], kept: int) -> list[Client]:
    """Return two clients that have followed a run log through *steps* until nothing is missing."""
    log = InMemoryRunLogService()
    servers = [Changes(lambda: log, kept=kept, linger=0) for _ in range(SERVERS)]
    clients = [Client(servers) for _ in range(2)]
    for client in clients:
        await client.connect(0)
    for step in steps:
        match step:
            case run, times:
                for _ in range(times):
                    event = RunEvent(run=a_run(id=f"{run}"))
                    await log.apply([event])
                    for client in clients:
                        client.missing[event.key] = event.version
            case number, most, server:
                client = clients[number]
                if client.missing:
                    await client.read(most)
                await client.connect(server)
    for client in clients:
        while client.missing:
            await client.read(1_000)
        await client.close()
    await log.close()
    return clients


saves = st.tuples(st.integers(0, 3), st.integers(1, 4))
reads = st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, SERVERS - 1))


@given(st.lists(st.one_of(saves, reads), max_size=30), st.integers(1, 4))
def test_a_stream_has_no_gap(steps: list[Save | Read], kept: int) -> None:
    """Whoever is cut off after any event, and comes back to any server, sees each run's newest state, once.

    That holds however few changes a server keeps.
    """

    async def within() -> list[Client]:
        async with asyncio.timeout(PATIENCE):
            return await follow(steps, kept)

    for client in asyncio.run(within()):
        assert len(client.seen) == len(set(client.seen))
        newest: dict[RunKey, Version] = {}
        for key, version in client.seen:
            assert newest.get(key, version) <= version
            newest[key] = version


class Browser:
    """Reads streams, each from the last id of the one before. Some pieces that come have a run change."""

    def __init__(self, log: InMemoryRunLogService, runs: int, changes: Sequence[bool]) -> None:
        self._log = log
        self._changes = itertools.cycle([*changes, True])
        self._left = [f"{number}" for number in range(runs)]
        self.expected = set(self._left)
        self.cursor: str | None = None
        self.seen: list[str] = []

    async def send(self, message: Any) -> None:
        """Take a piece of an answer, as ASGI says."""
        for block in message.get("body", b"").decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            self.cursor = fields.get("id", self.cursor)
            if "data" in fields and "event" not in fields:
                self.seen.append(json.loads(fields["data"])["id"])
        if self._left and self.cursor is not None and next(self._changes):
            await self._log.save_run(a_run(id=self._left.pop()))
        # A network takes its time, in which the next update is read.
        for _ in range(30):
            await asyncio.sleep(0)


@pytest.mark.search
@given(st.lists(st.integers(0, 12), min_size=1, max_size=8), st.integers(0, 3), st.lists(st.booleans()))
def test_a_stream_may_end_at_any_moment(lifetimes: list[int], silence: int, changed: list[bool]) -> None:
    """Whenever streams end, and however often they break the silence, the next tells what they have not."""

    async def read() -> Browser:
        log = InMemoryRunLogService()
        changes = Changes(lambda: log, linger=0)
        browser = Browser(log, 10, changed)
        for lifetime in itertools.chain(lifetimes, itertools.repeat(50, 100)):
            # Each look at the clock takes a second.
            clock = itertools.count().__next__
            times = StreamTimes(
                longest=timedelta(seconds=lifetime), keep_alive=timedelta(milliseconds=silence), clock=clock
            )
            updates = await changes.since(browser.cursor)
            stream = EventStream(updates, lambda seen: seen.as_form(json_event), times=times)
            await stream.stream_response(browser.send)
            if browser.expected == set(browser.seen):
                return browser
        raise AssertionError

    async def within() -> Browser:
        async with asyncio.timeout(PATIENCE):
            return await read()

    browser = asyncio.run(within())
    assert sorted(browser.expected) == sorted(browser.seen)
