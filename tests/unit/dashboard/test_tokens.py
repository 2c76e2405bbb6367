from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from cryptography.x509 import load_pem_x509_certificate
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from tests.tokens import ACCOUNT, AUDIENCE, IAP_AUDIENCE, ec_key_pair, iap_token, key_pair, signed_token

from run_log.dashboard import Authenticate
from run_log.dashboard.access.modes import CloudRunTokens, IapTokens, OidcTokens
from run_log.http.serving import serving
from run_log.http.tokens import STRIPPED_SIGNATURE

from .asking import Publisher, answered, guarded

CANARY = "canary29"
GOOGLE = "https://accounts.google.com"
NOW = datetime.now(UTC).timestamp()


class Mode:
    """A mode with keys of our own, and tokens that it lets in."""

    def __init__(self, name: str) -> None:
        self.name = name
        keys = {"iap": ec_key_pair, "oidc": key_pair, "iam": key_pair}[name]
        self.public = keys("a")[1]
        self.publisher = Publisher({"a": self.public})
        self.seconds = 0.0

    def authenticate(self, *users: str) -> Authenticate:
        """Return what lets in those *users*."""
        keys = self.publisher.certificates(lambda: self.seconds)
        if self.name == "iap":
            return IapTokens(audience=IAP_AUDIENCE, users=users, keys=keys)
        if self.name == "oidc":
            return OidcTokens(issuer=GOOGLE, audience=AUDIENCE, users=users or (ACCOUNT,), keys=keys)
        return CloudRunTokens(users=users)

    def token(self, claims: Mapping[str, Any] | None = None, **signed: str) -> str:
        """Return a good token, but for what differs."""
        if self.name == "iap":
            return iap_token(claims, **signed)
        token = signed_token(claims, **signed)
        return f"{token.rpartition('.')[0]}.{STRIPPED_SIGNATURE}" if self.name == "iam" else token

    def headers(self, token: str) -> list[tuple[bytes, bytes]]:
        """Return the headers with *token*."""
        if self.name == "iap":
            return [(b"x-goog-iap-jwt-assertion", token.encode())]
        return [(b"authorization", f"Bearer {token}".encode())]

    async def answer(self, token: str, *users: str) -> httpx2.Response:
        """Return what the API answers to *token*."""
        return await answered(guarded(self.authenticate(*users)), headers=self.headers(token))


@pytest.fixture(params=["iap", "oidc", "iam"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Return each mode."""
    return Mode(request.param)


@pytest.fixture(params=["iap", "oidc"])
def verifying(request: pytest.FixtureRequest) -> Mode:
    """Return each mode that verifies tokens itself."""
    return Mode(request.param)


async def _name(mode: Mode, token: str) -> str | None:
    connection = HTTPConnection({"type": "http", "headers": mode.headers(token)})
    return (await mode.authenticate()(connection)).name


async def test_who_is_signed_in_is_let_in_by_name(mode: Mode) -> None:
    """A good token lets in whom it names."""
    assert 200 == (await mode.answer(mode.token())).status_code
    assert ACCOUNT == await _name(mode, mode.token())


async def test_the_prefix_of_iap_is_left_out() -> None:
    """The name is the e-mail address alone, also where IAP says whose account it is."""
    iap = Mode("iap")

    assert "ann@example.com" == await _name(iap, iap.token({"email": "accounts.google.com:ann@example.com"}))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://other.example.com/"},
        {"aud": [AUDIENCE, IAP_AUDIENCE]},
        {"aud": None},
        {"iss": "https://evil.example.com"},
        {"iss": None},
        {"exp": NOW - 60, "iat": NOW - 3_600},
        {"exp": None},
        {"exp": "soon"},
        {"iat": NOW + 3_600, "exp": NOW + 7_200},
        {"iat": None},
    ],
    ids=range(10),
)
async def test_a_token_for_something_else_is_refused(verifying: Mode, claims: dict[str, Any]) -> None:
    """A token of another audience, issuer or time, or without one of these, is refused."""
    assert 401 == (await verifying.answer(verifying.token(claims))).status_code


@pytest.mark.parametrize("email", [None, "", 1, ["a@example.com"], "x" * 321, "a\nb@example.com"], ids=repr)
async def test_a_token_that_names_nobody_is_refused(mode: Mode, email: object) -> None:
    """A token without an e-mail address that can stand in a history is refused."""
    assert 403 == (await mode.answer(mode.token({"email": email}), "@example.com")).status_code


@pytest.mark.parametrize("verified", [None, False, "true", 1])
async def test_an_address_that_nobody_verified_is_refused(verified: object) -> None:
    """An e-mail address that the issuer has not verified may be anybody's."""
    oidc = Mode("oidc")

    assert 403 == (await oidc.answer(oidc.token({"email_verified": verified}))).status_code


def _segment(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _claims(mode: Mode) -> dict[str, Any]:
    text = mode.token().split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=="))
    return found


def _unsigned(mode: Mode, algorithm: object) -> str:
    return f"{_segment({'alg': algorithm, 'kid': 'a', 'typ': 'JWT'})}.{_segment(_claims(mode))}."


def _signed_with_the_public_key(mode: Mode) -> str:
    signed = _unsigned(mode, "HS256").removesuffix(".")
    secret = hmac.new(mode.public.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{_segment(secret)}"


FORGERIES: dict[str, Callable[[Mode], str]] = {
    "no algorithm": lambda mode: _unsigned(mode, "none"),
    "no algorithm, in capitals": lambda mode: _unsigned(mode, "None"),
    "no signature": lambda mode: _unsigned(mode, {"iap": "ES256", "oidc": "RS256"}[mode.name]),
    "algorithm of another type": lambda mode: _unsigned(mode, ["RS256"]),
    "public key as secret": _signed_with_the_public_key,
    "another key": lambda mode: mode.token(signed_by="b"),
    "unknown key": lambda mode: mode.token(key_id="b", signed_by="b"),
    "key without a name": lambda mode: mode.token(key_id=""),
    "the other algorithm": lambda mode: (signed_token if mode.name == "iap" else iap_token)(_claims(mode)),
    "changed": lambda mode: mode.token().replace(".", ".e30", 1),
    "stripped": lambda mode: f"{mode.token().rpartition('.')[0]}.{STRIPPED_SIGNATURE}",
    "empty": lambda _: "",
    "no token": lambda _: "ya29.abc",
    "not ASCII": lambda _: "é.é.é",
    "deep": lambda _: f"{_segment(b'[' * 5_000)}.{_segment({})}.x",
    "very long": lambda mode: f"{mode.token()}{'A' * 100_000}",
    "no object": lambda _: f"{_segment([1])}.{_segment([1])}.x",
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_token_is_refused(verifying: Mode, forgery: str) -> None:
    """Whatever a stranger can make of public keys and of somebody's token, it is refused."""
    answer = await verifying.answer(FORGERIES[forgery](verifying))

    assert (401, "application/problem+json") == (answer.status_code, answer.headers["content-type"])


@pytest.mark.parametrize("other", [None, "x"])
async def test_two_tokens_are_none(mode: Mode, other: str | None) -> None:
    """Where a header comes twice, it is not said which of them was verified."""
    first = mode.headers(mode.token())
    second = mode.headers(other) if other else first

    answer = await answered(guarded(mode.authenticate()), headers=[*first, *second])
    assert 401 == answer.status_code


async def test_no_token_is_refused(mode: Mode) -> None:
    """Without a token nothing is shown: problem details to a program, a page to a person."""
    app = guarded(mode.authenticate())

    problem, page = await answered(app), await answered(app, "/")
    assert (401, 401) == (problem.status_code, page.status_code)
    assert 401 == problem.json()["status"]
    assert ("Bearer", "Bearer") == (problem.headers["www-authenticate"], page.headers["www-authenticate"])
    assert page.headers["content-type"].startswith("text/html")
    assert "<h1>Unauthorized</h1>" in page.text


async def test_unknown_keys_fetch_once_a_minute(verifying: Mode) -> None:
    """However many tokens name unknown keys, the publisher is asked once, and once a minute from then on."""
    app = guarded(verifying.authenticate())

    async def ask(key_id: str) -> int:
        await answered(app, headers=verifying.headers(verifying.token(key_id=key_id, signed_by="b")))
        return verifying.publisher.fetches

    first = [await ask(f"x{number}") for number in range(30)]
    verifying.seconds += 61
    assert ([1] * 30, 2) == (first, await ask("y"))


@pytest.mark.parametrize(
    ("users", "claims", "status"),
    [
        (("ann@example.com",), {"email": "Ann@Example.com"}, 200),
        (("@example.com",), {"email": "ann@example.com", "hd": "example.com"}, 200),
        (("@example.com",), {"email": "ann@example.com"}, 403),
        (("@example.com",), {"email": "ann@evil-example.com", "hd": "evil-example.com"}, 403),
        (("@example.com",), {"email": "ann@sub.example.com", "hd": "sub.example.com"}, 403),
        (("bob@example.com", "@other.com"), {"email": "ann@example.com", "hd": "example.com"}, 403),
    ],
)
async def test_who_is_let_in(users: tuple[str, ...], claims: dict[str, Any], status: int) -> None:
    """With RUN_LOG_DASHBOARD_USERS only those are let in, and of a domain only those whom it owns."""
    oidc = Mode("oidc")

    assert status == (await oidc.answer(oidc.token(claims), *users)).status_code


async def test_another_issuer() -> None:
    """Another issuer's tokens are let in with its keys, and Google's are not."""
    issuer = "https://login.example.com"
    keys = Publisher({"a": key_pair("a")[1]}).certificates()
    app = guarded(OidcTokens(issuer=issuer, audience=AUDIENCE, users=("@example.com",), keys=keys))

    theirs = signed_token({"iss": issuer, "email": "ann@example.com"})
    googles = signed_token({"email": "ann@example.com"})
    statuses = [
        (await answered(app, headers={"authorization": f"Bearer {token}"})).status_code
        for token in (theirs, googles)
    ]
    assert [200, 401] == statuses


@pytest.mark.parametrize(
    ("claims", "status"),
    [({}, 200), ({"exp": 1_000_000_000}, 401), ({"exp": None}, 401), ({"exp": "x"}, 401)],
)
async def test_what_cloud_run_has_verified(claims: dict[str, Any], status: int) -> None:
    """A token whose signature Cloud Run removed is believed until it expires."""
    iam = Mode("iam")

    assert status == (await iam.answer(iam.token(claims))).status_code


@pytest.mark.parametrize(
    "end", ["", ".", f".x{STRIPPED_SIGNATURE}", ".c2lnbmF0dXJl", f".{STRIPPED_SIGNATURE}x"]
)
async def test_what_cloud_run_has_not_verified(end: str) -> None:
    """A token with another signature, or with none, was verified by nobody."""
    iam = Mode("iam")

    assert 401 == (await iam.answer(iam.token().removesuffix(f".{STRIPPED_SIGNATURE}") + end)).status_code


@pytest.mark.parametrize(
    "payload", ["", "é", _segment([1]), _segment(b"["), _segment(b"\xff"), _segment(b"[" * 9_000)]
)
async def test_a_payload_that_is_none(payload: str) -> None:
    """What has the right end and no payload before it is refused."""
    assert 401 == (await Mode("iam").answer(f"x.{payload}.{STRIPPED_SIGNATURE}")).status_code


async def test_of_two_headers_cloud_run_verifies_one() -> None:
    """Who gets past Cloud Run with a token of their own is not taken for whom another token names."""
    iam = Mode("iam")
    mine = iam.token({"email": "eve@example.com"})
    headers = {"x-serverless-authorization": f"Bearer {mine}", "authorization": f"Bearer {iam.token()}"}
    app = guarded(iam.authenticate(ACCOUNT))

    assert 403 == (await answered(app, headers=headers)).status_code


@pytest.mark.parametrize("claim", ["aud", "iss", "email", "exp", "iat", "sub"])
async def test_nothing_of_a_token_is_told(mode: Mode, claim: str, caplog: pytest.LogCaptureFixture) -> None:
    """No part of a token is in an answer or in a log."""
    token = mode.token({claim: CANARY, "email_verified": False, "hd": CANARY})
    answers = [
        await answered(guarded(mode.authenticate("b")), path, mode.headers(given))
        for path in ("/", "/api/v1/workflows/-/runs")
        for given in (token, f"{CANARY}.{CANARY}.{CANARY}", CANARY)
    ]

    said = " ".join(f"{answer.text} {answer.headers}" for answer in answers)
    said += " ".join(str(vars(record)) for record in caplog.records)
    assert {True} == {answer.status_code in {401, 403} for answer in answers}
    assert not any(part in said for part in (CANARY, *(part for part in token.split(".")[:2])))


async def test_keys_of_another_issuer() -> None:
    """Another issuer's keys are found as OpenID Connect says, and verify its tokens."""
    public: Any = load_pem_x509_certificate(key_pair("a")[1].encode()).public_key()
    numbers = public.public_numbers()
    rsa = {"n": _segment(numbers.n.to_bytes(256)), "e": _segment(numbers.e.to_bytes(3))}
    keys = [{"kty": "EC", "kid": "b"}, {"kty": "RSA"}, {"kty": "RSA", "kid": "a", **rsa}]
    pages: dict[str, Any] = {"/keys": {"keys": keys}}

    async def publisher(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse(pages[scope["path"]])(scope, receive, send)

    async with serving(publisher, host="127.0.0.1", port=0) as port:
        issuer = f"http://127.0.0.1:{port}"
        pages["/.well-known/openid-configuration"] = {"issuer": issuer, "jwks_uri": f"{issuer}/keys"}
        authenticate = OidcTokens(issuer=issuer, audience=AUDIENCE, users=(ACCOUNT,))
        answer = await answered(
            guarded(authenticate), headers={"authorization": f"Bearer {signed_token({'iss': issuer})}"}
        )

    assert 200 == answer.status_code
