from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from run_log.core import (
    ConfigurationError,
    DeadLetterReason,
    Message,
    Outcome,
    RunEvent,
    RunStatus,
    Settings,
    StoreUnavailableError,
    encode_event,
)
from run_log.core.errors import PushRefusedError
from run_log.projector import GroupCommit, GroupLimits, Projector
from run_log.projector.google_cloud import authentication
from run_log.projector.push.app import MAX_BODY_BYTES, create_push_app, received_message
from run_log.projector.push.oidc import TokenVerifier
from run_log.testing import a_run, an_event

from .doubles import JUNK, Letters, ScriptedStore, down, eventually

LIMITS = GroupLimits()


async def _let_in(_authorization: str | None) -> None:
    """Let in everybody."""


def _app(
    store: ScriptedStore,
    letters: Letters | None = None,
    *,
    limits: GroupLimits = LIMITS,
    auth: Any = _let_in,
) -> tuple[FastAPI, GroupCommit]:
    async def sleep(_seconds: float) -> None:
        await asyncio.sleep(0)

    group = GroupCommit(
        Projector(store), letters or Letters(), limits=limits, sleep=sleep, uniform=lambda _low, _high: 0.0
    )
    return create_push_app(group, auth), group


def _client(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://projector")


class _Held:
    """A body that is sent as the test says: its head at once, and the rest when it is let go on."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent = 0
        self.go_on = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Send it."""
        while self.sent < self.size:
            chunk = bytes(min(2**16, self.size - self.sent))
            self.sent += len(chunk)
            yield chunk
            await self.go_on.wait()


def _wrapped(message: Message, **more: Any) -> dict[str, Any]:
    inner = {
        "data": base64.b64encode(message.data).decode(),
        "attributes": dict(message.attributes),
        "messageId": "1",
        "publishTime": "2026-01-01T00:00:00.123Z",
        **more,
    }
    return {"message": inner, "subscription": "projects/p/subscriptions/s"}


async def _push(app: FastAPI, **request: Any) -> int:
    async with _client(app) as client:
        return (await client.post("/", **request)).status_code


async def test_a_wrapped_message_is_durable_when_it_is_answered() -> None:
    """A wrapped message is answered with 204 once its event can be queried."""
    store = ScriptedStore()
    app, _ = _app(store)

    status = await _push(app, json=_wrapped(encode_event(an_event(workflow_id="w", id="r"))))

    assert (204, True) == (status, await store.get_run("w", "r") is not None)


async def test_an_unwrapped_message_is_projected() -> None:
    """An unwrapped message is projected, with the metadata in its headers or without."""
    store = ScriptedStore()
    app, _ = _app(store)
    bodies = [encode_event(an_event(workflow_id="w", id=f"r{n}")).data for n in range(2)]

    with_metadata = await _push(app, content=bodies[0], headers={"x-goog-pubsub-message-id": "7"})
    without = await _push(app, content=bodies[1])

    assert (204, 204) == (with_metadata, without)
    assert 2 == (await store.get_stats("w"))["total"]


async def test_what_is_told_about_a_message_is_kept() -> None:
    """Id, time, attributes and deliveries of a pushed message are those that the envelope tells."""
    message = Message(data=b"{}", attributes={"a": "b"})
    envelope = {**_wrapped(message), "deliveryAttempt": 3}

    received = received_message(json.dumps(envelope).encode(), {})

    assert (b"{}", {"a": "b"}, "1", 3) == (
        received.data,
        received.attributes,
        received.message_id,
        received.delivery_attempt,
    )
    assert received.published_at is not None
    assert "2026-01-01T00:00:00.123000+00:00" == received.published_at.isoformat()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"message": 1}',
        b'{"message": {"data": "!!", "messageId": "1"}}',
        b'{"message": {"data": "e30="}}',
        b'{"message": {"data": "e30=", "messageId": "1", "attributes": 7}}',
        json.dumps(_wrapped(JUNK)).encode(),
        b'{"message": ' + b"[" * 100_000,
        b'{"message": {"data": "e30=", "messageId": ' + b"9" * 5_000 + b"}}",
        json.dumps(_wrapped(JUNK, attributes={"\ud800": "\ud800"})).encode(),
    ],
    ids=lambda body: repr(body[:60]),
)
async def test_what_is_no_message_is_dead_lettered(body: bytes) -> None:
    """What can never be projected is kept among the dead letters, and then does not come again."""
    letters = Letters()
    app, _ = _app(ScriptedStore(), letters)

    status = await _push(app, content=body)

    assert (204, 1) == (status, len(letters.kept))
    assert letters.reasons[0] in {DeadLetterReason.UNDECODABLE, DeadLetterReason.UNKNOWN_TYPE}


@pytest.mark.parametrize("attempt", ["1e999", "-1", '"3"', "NaN", "[[1]]", "1.5", "null"])
async def test_an_odd_count_of_deliveries_costs_no_message(attempt: str) -> None:
    """What stands for the number of deliveries, whatever it is, keeps no event from being projected."""
    store = ScriptedStore()
    app, _ = _app(store)
    envelope = {**_wrapped(encode_event(an_event(workflow_id="w", id="r"))), "deliveryAttempt": 0}

    status = await _push(
        app, content=json.dumps(envelope).replace('"deliveryAttempt": 0', f'"deliveryAttempt": {attempt}')
    )

    assert 204 == status
    assert await store.get_run("w", "r") is not None


async def test_concurrent_pushes_share_commits() -> None:
    """A hundred messages that are pushed at the same time become a few commits."""
    store = ScriptedStore()
    store.gate.clear()
    app, group = _app(store)
    events = [an_event(workflow_id="w", id=f"r{n}", status=RunStatus.SUCCESS) for n in range(100)]

    async with _client(app) as client:
        pushes = asyncio.gather(*(client.post("/", json=_wrapped(encode_event(event))) for event in events))
        await eventually(lambda: group.progress.in_hand == 100)
        store.gate.set()
        statuses = [answer.status_code for answer in await pushes]

    assert [204] * 100 == statuses
    assert {"total": 100, "successful": 100} == await store.get_stats("w")
    assert store.calls <= 5


async def test_a_store_that_is_away_is_told_to_pubsub() -> None:
    """While the store does not answer a push is told to come again, and is projected when it does."""
    store = ScriptedStore([StoreUnavailableError("away")])
    app, _ = _app(store)
    body = _wrapped(encode_event(an_event(workflow_id="w", id="r")))

    first = await _push(app, json=body)
    async with asyncio.timeout(30):
        while (again := await _push(app, json=body)) == 429:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)

    assert (503, 204) == (first, again)


async def test_a_store_that_denies_access_is_told_to_the_operator(caplog: pytest.LogCaptureFixture) -> None:
    """A store that needs somebody's action is logged, and pushes come again until somebody has acted."""
    app, _ = _app(ScriptedStore([ConfigurationError("grant roles/datastore.user")]))
    body = _wrapped(encode_event(an_event()))

    statuses = [await _push(app, json=body) for _ in range(2)]

    assert [503, 204] == statuses
    (record,) = [
        vars(record) for record in caplog.records if vars(record).get("event") == "run_log_push_failed"
    ]
    assert "grant roles/datastore.user" in record["error"]


async def test_an_overload_is_told_to_pubsub() -> None:
    """With as much in hand as may be, pushes are told to come later, and what is in hand is finished."""
    store = ScriptedStore()
    store.gate.clear()
    app, group = _app(store, limits=GroupLimits(messages=1))
    first = asyncio.create_task(_push(app, json=_wrapped(encode_event(an_event(id="a")))))
    await eventually(lambda: group.is_full)

    second = await _push(app, json=_wrapped(encode_event(an_event(id="b"))))
    store.gate.set()

    assert (429, 204) == (second, await first)


async def test_nobody_gets_in_without_a_token() -> None:
    """Who is refused is answered before the body is looked at."""

    async def refuse(_authorization: str | None) -> None:
        raise PushRefusedError("not you", status=403)

    store, letters = ScriptedStore(), Letters()
    app, _ = _app(store, letters, auth=refuse)

    statuses = [await _push(app, content=body) for body in (b"no json", encode_event(an_event()).data)]

    assert [403, 403] == statuses
    assert ([], 0) == (letters.kept, store.calls)


async def test_a_body_that_is_too_large_is_refused() -> None:
    """A body larger than any message of Pub/Sub is refused, and nothing of it is kept."""
    letters = Letters()
    app, _ = _app(ScriptedStore(), letters)

    assert (413, []) == (await _push(app, content=b"x" * (MAX_BODY_BYTES + 1)), letters.kept)


async def test_an_endless_body_is_refused_early() -> None:
    """A body that says no length is read up to the limit, whatever the framework's version does itself."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 2**20
            yield bytes(2**20)

    app, _ = _app(ScriptedStore())

    status = await _push(app, content=endless())

    assert (413, MAX_BODY_BYTES + 2**20) == (status, sent)


async def test_health_tells_a_stuck_projector_from_an_idle_one() -> None:
    """`/live` fails while something is in hand and nothing moves for two minutes; `/ready` says why not."""
    now = [0.0]
    store = ScriptedStore()
    store.gate.clear()
    group = GroupCommit(Projector(store), Letters(), now=lambda: now[0])
    why: list[str | None] = ["StoreUnavailableError"]
    app = create_push_app(group, _let_in, trouble=lambda: why[0])

    async def live() -> int:
        async with _client(app) as client:
            return (await client.get("/live")).status_code

    now[0] = 1_000.0
    idle = await live()
    push = asyncio.create_task(_push(app, json=_wrapped(encode_event(an_event(a_run())))))
    await store.entered.wait()
    busy = await live()
    now[0] += 121
    stuck = await live()
    async with _client(app) as client:
        lag = (await client.get("/lag")).json()
        away = await client.get("/ready")
        why[0] = None
        back = await client.get("/ready")
    store.gate.set()
    await push

    assert (200, 200, 503, 200) == (idle, busy, stuck, await live())
    assert 1 == lag["in_hand"]
    assert lag["lag_seconds"] > 0
    assert (503, {"trouble": "StoreUnavailableError"}) == (away.status_code, away.json())
    assert 200 == back.status_code


def test_it_is_never_open_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word on who may push, or with the platform's where there is none, nothing is started."""
    monkeypatch.delenv("K_SERVICE", raising=False)
    with pytest.raises(ConfigurationError, match="set RUN_LOG_PUSH_AUTH"):
        authentication(Settings(), host="127.0.0.1")
    with pytest.raises(ConfigurationError, match="K_SERVICE"):
        authentication(Settings(push_auth="iam"), host="0.0.0.0")  # noqa: S104 - what is refused
    with pytest.raises(ConfigurationError, match="RUN_LOG_PUSH_AUDIENCE and RUN_LOG_PUSH_SERVICE_ACCOUNT"):
        authentication(Settings(push_auth="oidc", push_audience="https://x"), host="127.0.0.1")


async def test_the_platform_may_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Cloud Run, and on this machine alone, it may be left to the platform who pushes."""
    monkeypatch.delenv("K_SERVICE", raising=False)
    for host in ("127.0.0.1", "::1", "localhost"):
        await authentication(Settings(push_auth="iam"), host=host)(None)
    monkeypatch.setenv("K_SERVICE", "projector")
    await authentication(Settings(push_auth="iam"), host="0.0.0.0")(None)  # noqa: S104 - a container's
    verifier = authentication(
        Settings(push_auth="oidc", push_audience="https://x", push_service_account="a@b"),
        host="0.0.0.0",  # noqa: S104
    )

    assert isinstance(verifier, TokenVerifier)


async def test_bodies_under_way_are_bounded_in_bytes() -> None:
    """Of many large bodies that come at once, those that do not fit are refused before they are read."""
    app, group = _app(ScriptedStore(), limits=GroupLimits(data_bytes=2_000_000))
    bodies = [_Held(900_000) for _ in range(40)]

    async with _client(app) as client:
        length = {"content-length": "900000"}
        pushes = [asyncio.create_task(client.post("/", content=body, headers=length)) for body in bodies]
        await eventually(lambda: sum(push.done() for push in pushes) == 38)
        sent = sum(body.sent for body in bodies)
        small = await _push(app, json=_wrapped(encode_event(an_event())))
        for body in bodies:
            body.go_on.set()
        statuses = sorted([(await push).status_code for push in pushes])

    assert [204] * 2 + [429] * 38 == statuses
    assert sent <= 4 * 2**16
    assert 204 == small
    assert (0, 0) == (group.progress.in_hand, group.progress.in_hand_bytes)


async def test_bodies_without_a_length_are_bounded_in_bytes() -> None:
    """Bodies that do not say how large they are are refused once they no longer fit; some come through."""
    app, _ = _app(ScriptedStore(), limits=GroupLimits(data_bytes=2**20))
    bodies = [_Held(700_000) for _ in range(20)]

    async with _client(app) as client:
        pushes = [asyncio.create_task(client.post("/", content=body)) for body in bodies]
        await eventually(lambda: all(body.sent for body in bodies))
        for body in bodies:
            body.go_on.set()
        statuses = {(await push).status_code for push in pushes}

    assert {204, 429} == statuses


@pytest.mark.parametrize("told", [True, False])
async def test_one_message_alone_always_gets_through(told: bool) -> None:  # noqa: FBT001
    """With nothing else in hand a message is taken, however little may be in hand."""
    app, _ = _app(ScriptedStore(), limits=GroupLimits(data_bytes=1, decoded_bytes=1))
    body = _Held(1_000_000)
    body.go_on.set()

    assert 204 == await _push(app, content=body, headers={"content-length": "1000000"} if told else {})


async def test_a_body_that_does_not_come_holds_no_room() -> None:
    """A body that does not come in time is given up, and what was reserved for it is free again."""
    app, group = _app(ScriptedStore(), limits=GroupLimits(data_bytes=1_000))
    app = create_push_app(group, _let_in, read_seconds=0.05)
    event = _wrapped(encode_event(an_event()))

    hanging = asyncio.create_task(_push(app, content=_Held(2**20)))
    first = await hanging
    async with asyncio.timeout(30):
        second = await _push(app, json=event)

    assert (408, 204) == (first, second)


async def test_a_lying_length_reserves_no_less() -> None:
    """A body that is larger than it says is held to the bound all the same."""
    app, group = _app(ScriptedStore(), limits=GroupLimits(data_bytes=100_000))
    with group.reserving() as has_room:
        assert has_room(50_000)
        body = _Held(200_000)
        body.go_on.set()
        status = await _push(app, content=body, headers={"content-length": "10"})

    assert 429 == status
    assert body.sent < 200_000


class _Breaking(ScriptedStore):
    """Fails as nobody foresees, until it is mended."""

    is_broken = True

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""
        if self.is_broken:
            raise KeyError(QUOTED)
        return await super().apply(events)


QUOTED = "a-secret-of-somebody"


async def test_after_a_fault_that_nobody_foresaw_it_says_so_and_begins_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An unforeseen failure fails `/live` and `/ready`, and has pushes come again later, until it is over."""
    store, over = _Breaking(), asyncio.Event()

    async def sleep(_seconds: float) -> None:
        await over.wait()

    group = GroupCommit(Projector(store), Letters(), sleep=sleep)
    app = create_push_app(group, _let_in)
    body = _wrapped(encode_event(an_event(workflow_id="w", id="r")))

    async with _client(app) as client:
        answers = [await client.post("/", json=body) for _ in range(3)]
        health = [await client.get(path) for path in ("/live", "/ready")]
        in_hand = group.progress.in_hand
        store.is_broken = False
        over.set()
        async with asyncio.timeout(30):
            while (again := await client.post("/", json=body)).status_code != 204:  # noqa: ASYNC110
                await asyncio.sleep(0)
        after = [(await client.get(path)).status_code for path in ("/live", "/ready")]

    assert [503] * 5 == [answer.status_code for answer in (*answers, *health)]
    assert all(answer.headers["retry-after"] for answer in answers)
    assert (0, 204, [200, 200]) == (in_hand, again.status_code, after)
    said = f"{[a.text for a in (*answers, *health)]} {[vars(record) for record in caplog.records]}"
    assert QUOTED not in said


async def test_no_push_is_answered_with_an_error_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever fails while a push is taken, it is told to come again, and nothing of it is logged."""

    async def auth(_authorization: str | None) -> None:
        raise KeyError(QUOTED)

    letterless, _ = _app(ScriptedStore(), Letters([down()]))
    app, _ = _app(ScriptedStore(), auth=auth)

    assert 503 == await _push(letterless, content=b"no json")
    assert 503 == await _push(app, content=b"{}")
    assert QUOTED not in str([vars(record) for record in caplog.records])
