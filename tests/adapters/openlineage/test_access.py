"""Who may send events."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx2
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from tests.tokens import ACCOUNT, AUDIENCE, key_pair, signed_token
from tests.unit.producer.transports import logged

from run_log.adapters.openlineage import create_app
from run_log.adapters.openlineage.access import Authenticate, CloudRunTokens, GoogleTokens
from run_log.core import ConfigurationError
from run_log.http.tokens import Certificates
from run_log.stores import InMemoryRunLogService

from .kit import URL, client_of

FORWARDED = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"]


async def _answer(
    auth: str | Authenticate | None, headers: Mapping[str, str] | None = None, address: str = "127.0.0.1"
) -> httpx2.Response:
    """Return what is answered to something that is no event: 422 to whoever is let in."""
    app = create_app(InMemoryRunLogService(), auth=auth)
    async with client_of(app, address) as client:
        return await client.post(URL, content=b"no event", headers=headers)


def _google() -> GoogleTokens:
    certificates = Certificates(lambda: ({"a": key_pair("a")[1]}, 3_600.0))
    return GoogleTokens(audience=AUDIENCE, accounts={ACCOUNT}, certificates=certificates)


@pytest.mark.parametrize("auth", [None, "none"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
async def test_this_machine_is_let_in(auth: str | None, address: str) -> None:
    """Without a mode, any program on this machine may send events."""
    assert 422 == (await _answer(auth, address=address)).status_code


@pytest.mark.parametrize("address", ["10.0.0.7", "203.0.113.9", "2001:db8::1", "elsewhere", ""])
async def test_another_machine_is_refused(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without a mode nobody else may, and the answer and the log say what to set."""
    answer = await _answer(None, address=address)

    assert 403 == answer.status_code
    assert "RUN_LOG_OPENLINEAGE_AUTH" in answer.json()["detail"]
    assert [403] == [line["status"] for line in logged(caplog, "run_log_openlineage_refused")]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example.com"},
        {"origin": "https://evil.example.com"},
        {"sec-fetch-site": "cross-site"},
        *({name: "127.0.0.1"} for name in FORWARDED),
    ],
)
async def test_pages_and_proxies_are_refused(headers: dict[str, str]) -> None:
    """Without a mode, neither a page in a browser on this machine may, nor a proxy for somebody else."""
    assert 403 == (await _answer(None, headers)).status_code


async def test_a_token_of_the_account() -> None:
    """An account with a token that Google has signed for the audience may send events from anywhere."""
    headers = {"authorization": f"Bearer {signed_token()}"}

    assert 422 == (await _answer(_google(), headers, "203.0.113.9")).status_code


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"aud": "https://elsewhere.example.com/"}, 401),
        ({"iss": "https://evil.example.com"}, 401),
        ({"exp": 1_000}, 401),
        ({"email": "somebody@example.com"}, 403),
        ({"email": None}, 403),
        ({"email_verified": False}, 403),
    ],
)
async def test_a_token_for_something_else_is_refused(claims: dict[str, Any], status: int) -> None:
    """A token for another audience, of another issuer or account, or an expired one lets nobody in."""
    answer = await _answer(_google(), {"authorization": f"Bearer {signed_token(claims)}"})

    assert status == answer.status_code
    assert ("Bearer" if status == 401 else None) == answer.headers.get("www-authenticate")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer ",
        "Bearer nothing",
        "Basic abc",
        f"Bearer {signed_token(signed_by='b')}",
        f"Bearer {signed_token().rpartition('.')[0]}.SIGNATURE_REMOVED_BY_GOOGLE",
    ],
)
async def test_no_token_is_refused(header: str | None) -> None:
    """Without a valid token nobody is let in, from this machine neither."""
    assert 401 == (await _answer(_google(), {} if header is None else {"authorization": header})).status_code


async def test_no_body_is_read_before() -> None:
    """Of a stranger nothing is read."""
    app = create_app(InMemoryRunLogService(), auth=_google())

    read: list[bytes] = []

    async def content() -> AsyncGenerator[bytes]:
        read.append(b"{}")
        yield read[-1]

    async with client_of(app) as client:
        answer = await client.post(URL, content=content())

    assert (401, []) == (answer.status_code, read)


def _of_cloud_run(signature: str = "SIGNATURE_REMOVED_BY_GOOGLE", **claims: object) -> dict[str, str]:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": 2_000, "email": ACCOUNT, **claims}).encode())
    return {"authorization": f"Bearer e30.{payload.decode().rstrip('=')}.{signature}"}


@pytest.mark.parametrize(
    ("accounts", "headers", "status"),
    [
        ((), _of_cloud_run(), 422),
        ((ACCOUNT,), _of_cloud_run(), 422),
        (("other@example.com",), _of_cloud_run(), 403),
        ((), _of_cloud_run("a"), 401),
        ((), _of_cloud_run(exp=900), 401),
        ((), {}, 401),
    ],
)
async def test_cloud_run(accounts: tuple[str, ...], headers: dict[str, str], status: int) -> None:
    """On Cloud Run, whom it has let in may send events, or of those the accounts that are named."""
    auth = CloudRunTokens(accounts=accounts, now=lambda: 1_000)

    assert status == (await _answer(auth, headers, "169.254.1.1")).status_code


@pytest.mark.parametrize(
    ("mode", "environment", "told"),
    [
        ("oidc", {}, "needs RUN_LOG_OPENLINEAGE_AUDIENCE and RUN_LOG_OPENLINEAGE_ACCOUNTS"),
        ("oidc", {"RUN_LOG_OPENLINEAGE_AUDIENCE": "a"}, "needs RUN_LOG_OPENLINEAGE_AUDIENCE and"),
        ("oidc", {"RUN_LOG_OPENLINEAGE_ACCOUNTS": "a@b"}, "needs RUN_LOG_OPENLINEAGE_AUDIENCE and"),
        ("iam", {}, "needs Cloud Run"),
        ("open", {}, "pass none, oidc or iam"),
        (None, {"RUN_LOG_OPENLINEAGE_AUTH": "iam"}, "needs Cloud Run"),
        (None, {"RUN_LOG_OPENLINEAGE_AUTH": "open"}, "RUN_LOG_OPENLINEAGE_AUTH='open'"),
    ],
)
def test_it_is_never_open_by_accident(
    mode: str | None, environment: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mode that cannot check who sends events is an error that says what to set."""
    monkeypatch.delenv("K_SERVICE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=told):
        create_app(InMemoryRunLogService(), auth=mode)


@pytest.mark.parametrize("mode", ["oidc", "iam"])
async def test_modes_of_the_settings(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings say who may send events."""
    monkeypatch.setenv("K_SERVICE", "receiver")
    monkeypatch.setenv("RUN_LOG_OPENLINEAGE_AUTH", mode)
    monkeypatch.setenv("RUN_LOG_OPENLINEAGE_AUDIENCE", AUDIENCE)
    monkeypatch.setenv("RUN_LOG_OPENLINEAGE_ACCOUNTS", f"{ACCOUNT}, other@example.com")

    assert 401 == (await _answer(None)).status_code


async def test_a_platform_s_own() -> None:
    """A platform's own function says who may send events, and nothing else is asked."""

    async def of_the_platform(connection: HTTPConnection) -> None:
        if "x-user" not in connection.headers:
            raise HTTPException(401, "sign in")

    refused = await _answer(of_the_platform)

    assert (401, "sign in") == (refused.status_code, refused.json()["detail"])
    assert 422 == (await _answer(of_the_platform, {"x-user": "ann"}, "203.0.113.9")).status_code
