from __future__ import annotations

import asyncio
import base64
import json
import threading
from functools import cache
from typing import Any

import httpx2
import pytest
from google.auth import exceptions as auth_errors
from tests.tokens import ACCOUNT, AUDIENCE, key_pair, signed_token

from run_log.core.errors import PushRefusedError
from run_log.http.tokens import (
    FETCH_EVERY_SECONDS,
    LONGEST_CACHE_SECONDS,
    SHORTEST_CACHE_SECONDS,
    STRIPPED_SIGNATURE,
    Certificates,
    Fetched,
)
from run_log.projector import GroupCommit, Projector
from run_log.projector.push.app import create_push_app
from run_log.projector.push.oidc import TokenVerifier
from run_log.stores import InMemoryRunLogService

from .doubles import Letters, eventually, logged

_ERRORS: Any = auth_errors  # not annotated
_AWAY: Exception = _ERRORS.TransportError("away")


class _Google:
    """Hands out certificates, and counts how often."""

    def __init__(self, *key_ids: str, max_age: float = 3_600) -> None:
        self.key_ids = key_ids
        self.max_age = max_age
        self.fetches = 0
        self.error: Exception | None = None

    def fetch(self) -> Fetched:
        """See `fetch_certificates`."""
        self.fetches += 1
        if self.error is not None:
            raise self.error
        return {key_id: key_pair(key_id)[1] for key_id in self.key_ids}, self.max_age


class _Clock:
    now = 1_000.0

    def __call__(self) -> float:
        """Return monotonic seconds."""
        return self.now


def _verifier(google: _Google, clock: _Clock | None = None) -> TokenVerifier:
    certificates = Certificates(google.fetch, now=clock or _Clock())
    return TokenVerifier(audience=AUDIENCE, service_account=ACCOUNT, certificates=certificates)


def _token() -> str:
    return f"Bearer {signed_token()}"


async def _status(verifier: TokenVerifier, authorization: str | None) -> int:
    try:
        await verifier(authorization)
    except PushRefusedError as error:
        return error.status
    return 200


@pytest.mark.parametrize("issuer", ["accounts.google.com", "https://accounts.google.com"])
async def test_a_token_of_pubsub_is_let_in(issuer: str) -> None:
    """A token that Google signed for the service account and this audience is let in."""
    assert 200 == await _status(_verifier(_Google("a")), f"Bearer {signed_token({'iss': issuer})}")


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"aud": "https://other.example.com/"}, 401),
        ({"iss": "https://evil.example.com"}, 401),
        ({"exp": 1_000_000_000, "iat": 999_990_000}, 401),
        ({"iat": 32_503_680_000, "exp": 32_503_690_000}, 401),
        ({"email": "somebody@example.com"}, 403),
        ({"email": None}, 403),
        ({"email_verified": False}, 403),
        ({"email_verified": "true"}, 403),
    ],
)
async def test_a_token_for_something_else_is_refused(claims: dict[str, Any], status: int) -> None:
    """A token of another audience, issuer, time or account is refused."""
    assert status == await _status(_verifier(_Google("a")), f"Bearer {signed_token(claims)}")


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic abc",
        "Bearer a.b.c",
        "Bearer x",
        f"Bearer {signed_token(signed_by='b')}",
    ],
)
async def test_no_token_is_refused(authorization: str | None) -> None:
    """Without a token, with something else in its place, or with another signature, nobody is let in."""
    if authorization == "of another key":
        authorization = f"Bearer {signed_token(signed_by='b')}"

    assert 401 == await _status(_verifier(_Google("a")), authorization)


async def test_a_token_whose_signature_the_platform_removed() -> None:
    """A token that Cloud Run has verified and stripped is refused, with the setting that is right there."""
    stripped = f"{signed_token().rpartition('.')[0]}.{STRIPPED_SIGNATURE}"

    with pytest.raises(PushRefusedError, match="RUN_LOG_PUSH_AUTH=iam"):
        await _verifier(_Google("a"))(f"Bearer {stripped}")


@pytest.mark.parametrize(
    ("max_age", "kept"), [(0, SHORTEST_CACHE_SECONDS), (3_600, 3_600), (1e9, LONGEST_CACHE_SECONDS)]
)
async def test_certificates_are_kept_within_bounds(max_age: float, kept: float) -> None:
    """Certificates are kept as long as Google says, but for minutes at least and a day at most."""
    google, clock = _Google("a", max_age=max_age), _Clock()
    verifier = _verifier(google, clock)
    await verifier(_token())
    clock.now += kept - 1
    await verifier(_token())
    before = google.fetches
    clock.now += 1
    await verifier(_token())
    await eventually(lambda: google.fetches == 2)

    assert 1 == before


async def test_a_new_key_is_fetched() -> None:
    """A new key of Google's is known within a minute; for unknown ones nothing is fetched oftener."""
    google, clock = _Google("a"), _Clock()
    verifier = _verifier(google, clock)
    await verifier(_token())
    google.key_ids = ("a", "b")

    early = [await _status(verifier, f"Bearer {signed_token(key_id='b', signed_by='b')}") for _ in range(5)]
    fetched_early = google.fetches
    clock.now += FETCH_EVERY_SECONDS
    late = await _status(verifier, f"Bearer {signed_token(key_id='b', signed_by='b')}")

    assert ([401] * 5, 1) == (early, fetched_early)
    assert (200, 2) == (late, google.fetches)


@pytest.mark.parametrize("error", [_AWAY, OSError("away"), ValueError("no JSON")])
async def test_certificates_that_cannot_be_had(error: Exception) -> None:
    """While the certificates cannot be had a push is told to come again, and then let in."""
    google = _Google("a")
    google.error = error
    verifier = _verifier(google)

    away = await _status(verifier, _token())
    google.error = None

    assert (503, 200) == (away, await _status(verifier, _token()))


class _Hanging(_Google):
    """Hands out certificates once it is let."""

    def __init__(self, *key_ids: str) -> None:
        super().__init__(*key_ids)
        self.gate = threading.Event()
        self.gate.set()

    def fetch(self) -> Fetched:
        """See `fetch_certificates`."""
        fetched = super().fetch()
        assert self.gate.wait(60)
        return fetched


async def _fetched(google: _Google, times: int) -> None:
    await eventually(lambda: google.fetches == times)


@cache
def _unknown(key_id: str) -> str:
    return f"Bearer {signed_token(key_id=key_id, signed_by='b')}"


@pytest.mark.parametrize("outcome", [None, OSError("away")], ids=["fetched", "failed"])
async def test_strangers_hold_nobody_up(outcome: Exception | None) -> None:
    """However many tokens with unknown keys come, a token with a known key waits for nothing."""
    google, clock = _Hanging("a"), _Clock()
    verifier = _verifier(google, clock)
    await verifier(_token())
    google.gate.clear()
    google.error = None
    clock.now += FETCH_EVERY_SECONDS

    first = asyncio.create_task(_status(verifier, _unknown("x0")))
    await eventually(lambda: google.fetches == 2)
    strangers = [await _status(verifier, _unknown("x1")) for _ in range(19)]
    known = await _status(verifier, _token())
    google.error = outcome
    google.gate.set()
    waited = await first
    afterwards = [await _status(verifier, _unknown("x1")) for _ in range(20)]

    assert ([503] * 19, 200) == (strangers, known)
    assert (401, [401] * 20, 2) == (waited, afterwards, google.fetches)


async def test_a_fetch_that_fails_leaves_known_keys_alone() -> None:
    """Certificates that are due and cannot be had are kept a day longer, and tried for once a minute."""
    google, clock = _Google("a", max_age=0), _Clock()
    verifier = _verifier(google, clock)
    await verifier(_token())
    google.error = OSError("away")

    statuses: list[int] = []
    for fetches in (2, 3, 4):
        clock.now += SHORTEST_CACHE_SECONDS
        statuses += [await _status(verifier, _token()) for _ in range(5)]
        await _fetched(google, fetches)
    clock.now += LONGEST_CACHE_SECONDS
    too_old = await _status(verifier, _token())

    assert ([200] * 15, 503) == (statuses, too_old)


async def test_the_first_requests_share_a_fetch() -> None:
    """With no certificates yet, all requests wait for one fetch, also where the first of them goes away."""
    google = _Hanging("a")
    google.gate.clear()
    verifier = _verifier(google)

    asked = [asyncio.create_task(_status(verifier, _token())) for _ in range(10)]
    await eventually(lambda: google.fetches == 1)
    asked[0].cancel()
    google.gate.set()
    statuses = [await task for task in asked[1:]]

    assert ([200] * 9, 1) == (statuses, google.fetches)


async def test_a_fetch_that_hangs_is_given_up() -> None:
    """A fetch that does not end is waited for no longer than it may take, and then tried again."""
    google = _Hanging("a")
    google.gate.clear()
    certificates = Certificates(google.fetch, now=_Clock(), fetch_seconds=0.01)
    verifier = TokenVerifier(audience=AUDIENCE, service_account=ACCOUNT, certificates=certificates)

    hanging = await _status(verifier, _token())
    google.gate.set()
    async with asyncio.timeout(30):
        while await _status(verifier, _token()) != 200:
            pass

    assert 503 == hanging


def _segment(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


CANARY = "canary29"
_HEADER = {"alg": "RS256", "kid": "a", "typ": "JWT"}


TOKENS = (
    f"ya29.{CANARY}",
    CANARY,
    f"{CANARY}.{CANARY}.{CANARY}",
    f"{CANARY}.é.{CANARY}",
    f"{_segment([CANARY])}.{_segment({})}.{CANARY}",
    f"{_segment(CANARY.encode())}.{_segment({})}.{CANARY}",
    f"{_segment({**_HEADER, 'kid': CANARY})}.{_segment({})}.{CANARY}",
    f"{_segment({**_HEADER, 'kid': [CANARY]})}.{_segment({})}.{CANARY}",
    f"{_segment({**_HEADER, 'alg': CANARY})}.{_segment({})}.{CANARY}",
    f"{_segment({**_HEADER, 'alg': [CANARY]})}.{_segment({})}.{CANARY}",
    f"{_segment(_HEADER)}.{_segment([CANARY])}.{CANARY}",
    f"{_segment(b'[' * 100_000)}.{_segment({})}.{CANARY}",
    f"{_segment(_HEADER)}.{_segment({})}.{STRIPPED_SIGNATURE}{CANARY}",
    {"aud": CANARY},
    {"iss": CANARY},
    {"email": CANARY},
    {"exp": CANARY},
    {"iat": [CANARY]},
)
"""Tokens, or what a well-signed one claims."""


@pytest.mark.parametrize("given", TOKENS, ids=range(len(TOKENS)))
async def test_nothing_of_a_token_is_told(
    given: str | dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever stands in a token, it is refused, and no part of it is in the answer or in a log."""
    token = given if isinstance(given, str) else signed_token(given)
    app = create_push_app(GroupCommit(Projector(InMemoryRunLogService()), Letters()), _verifier(_Google("a")))

    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://projector"
    ) as client:
        answer = await client.post("/", headers=[(b"authorization", f"Bearer {token}".encode())])

    assert answer.status_code in {401, 403}
    assert 1 == len(logged(caplog, "run_log_push_refused"))
    said = f"{answer.text} {dict(answer.headers)} " + " ".join(str(vars(record)) for record in caplog.records)
    assert not any(part in said for part in (CANARY, *(part for part in token.split(".") if len(part) > 8)))


async def test_nothing_of_a_failed_fetch_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Why certificates cannot be had is told without the vendor's words, which may hold a password."""
    google = _Google("a")
    google.error = _ERRORS.TransportError(f"https://user:{CANARY}@proxy")

    with pytest.raises(PushRefusedError) as refused:
        await _verifier(google)(_token())

    assert CANARY not in f"{refused.value} {[vars(record) for record in caplog.records]}"
    assert "TransportError" in str(logged(caplog, "run_log_certificates_not_fetched"))
