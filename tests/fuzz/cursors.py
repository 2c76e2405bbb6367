"""Cursors that somebody altered or forged, handed to every listing and watch of a run log."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from run_log.core import InvalidCursorError, PauseRequest, RunStatus
from run_log.stores import ProjectionStore, RunLog
from run_log.stores.listings import Selection, encode_parts
from run_log.testing import a_run, an_event

from .pipes import FuzzFailedError

NOON: Final = datetime(2026, 3, 4, 12, tzinfo=UTC)
INVALID: Final = "invalid"
VALUE: Final = "value"

_CHECK_BYTES: Final = 6
_PARTS: Final[tuple[Any, ...]] = (
    *(None, True, 0.5, float("nan"), [], {}),
    *(0, -1, 1, 2**31, 2**53, 2**62, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30, 10**4_000),
    *(253_402_300_799_999_999, 253_402_300_800_000_000, 253_402_300_799_999_999_000),
    *(-62_135_596_800_000_000, -62_135_596_800_000_001),
    *("", "a", "\x00", "\x7f", "\ud800", "a\udfffb", "/", "a/b", "a/runs/b", "a/runs/", "/runs/b"),
    *("..", ".", "__x__", "____", "é" * 800, "x" * 1_501, "x" * 70_000, "%", "\u2028", "\U0001f600"),
)


class Listing(NamedTuple):
    """What gives out cursors, and takes them."""

    name: str
    ask: Callable[[Any], Awaitable[Any]]
    """Given a cursor, or None."""
    cursor: str
    """A genuine one."""
    scope: str
    selection: str


async def fill(store: ProjectionStore) -> None:
    """Store some runs, so that every listing has more than a page of one."""
    await store.apply(
        [
            an_event(
                workflow_id=workflow,
                id=f"{status.value}-{number}",
                status=status,
                started_at=NOON - timedelta(minutes=number),
                pause=PauseRequest(reason="?", assignee="mei", deadline=NOON),
            )
            for workflow in ("v", "w")
            for status in (RunStatus.PAUSED, RunStatus.RUNNING)
            for number in range(2)
        ]
    )


async def listings(log: RunLog, *, watch: bool) -> list[Listing]:
    """Return everything that takes cursors, once `fill` is visible."""

    async def stale(cursor: Any) -> Any:
        return await log.list_stale(timedelta(0), limit=1, start_after=cursor)

    async def runs(cursor: Any, **filters: Any) -> Any:
        return await log.list_runs("w", limit=1, start_after=cursor, **filters)

    async def pending(cursor: Any, **filters: Any) -> Any:
        return await log.list_pending(limit=1, start_after=cursor, now=NOON + timedelta(1), **filters)

    async def workflows(cursor: Any) -> Any:
        return await log.list_workflows(limit=1, start_after=cursor)

    asked: list[tuple[str, Callable[[Any], Awaitable[Any]], str, str]] = [
        ("runs", runs, "w", Selection().text),
        ("oldest", lambda c: runs(c, order="oldest"), "w", Selection.of(order="oldest").text),
        ("workflows", workflows, "workflows", ""),
        ("inbox", pending, "inbox", "[null,null,null]"),
        ("overdue", lambda c: pending(c, overdue=True), "inbox", "[null,true,null]"),
        ("of mei", lambda c: pending(c, assignee="mei", workflow_id="w"), "inbox", '["mei",null,"w"]'),
        ("stale", stale, "stale", "[null]"),
    ]
    found = [Listing(name, ask, (await ask(None))[1], scope, text) for name, ask, scope, text in asked]
    if watch:
        for workflow in (None, "w"):

            async def watched(cursor: Any, workflow: str | None = workflow) -> None:
                async with log.watch(workflow, since_cursor=cursor):
                    pass

            async with log.watch(workflow) as changes:
                await log.save_run(a_run(workflow_id="w", id="watched"))
                cursor = (await anext(changes)).cursor
            found.append(Listing("watch", watched, cursor, "watch", json.dumps([workflow])))
    return found


async def run_cursors(numbers: Iterable[int], *, seed: int, among: list[Listing]) -> Counter[str]:
    """Hand over one cursor for each of these *numbers*, and return what came of them.

    Raises:
        FuzzFailedError: Something came of one that is neither a page nor an `InvalidCursorError`.
    """
    counts = Counter[str]()
    for number in numbers:
        chance = random.Random(f"{seed}/{number}")
        listing = chance.choice(among)
        cursor = chance.choice((_forged, _forged, _forged, _altered))(chance, listing)
        try:
            await listing.ask(cursor)
        except InvalidCursorError as error:
            if len(str(error)) > 2_000:
                raise FuzzFailedError(f"cursor {number} of seed {seed}: the error is too long") from error
            counts[f"{listing.name}: {INVALID}"] += 1
        except Exception as error:
            raise FuzzFailedError(
                f"cursor {number} of seed {seed} ({listing.name}, {cursor!r:.200}): {error!r}"
            ) from error
        else:
            counts[f"{listing.name}: {VALUE}"] += 1
    return counts


def _forged(chance: random.Random, listing: Listing) -> object:
    """Return a cursor that says of itself that it is whole: whoever reads the sources can make one."""
    parts = _parts_of(listing.cursor)
    for _ in range(chance.choice((1, 1, 2))):
        change = chance.randrange(12)
        if change == 0:
            parts.append(chance.choice(_PARTS))
        elif change == 1 and parts:
            parts.pop()
        elif parts:
            parts[chance.randrange(len(parts))] = chance.choice(_PARTS)
    return encode_parts(parts, scope=listing.scope, selection=listing.selection)


def _altered(chance: random.Random, listing: Listing) -> object:
    """Return a genuine cursor with something wrong in it."""
    cursor, at = listing.cursor, chance.randrange(len(listing.cursor))
    return chance.choice(
        (
            cursor[:at],
            cursor[:at] + chance.choice("-_=A \x00é\ud800") + cursor[at + 1 :],
            cursor + chance.choice(("=", "A", "\n", cursor)),
            cursor[::-1],
            cursor.encode(),
            [cursor],
            base64.urlsafe_b64encode(chance.randbytes(at + 7)).rstrip(b"=").decode(),
            base64.urlsafe_b64encode(b"123456" + b"[" * 9_999).rstrip(b"=").decode(),
        )
    )


def _parts_of(cursor: str) -> list[Any]:
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    _, *parts = json.loads(raw[_CHECK_BYTES:])
    return list(parts)
