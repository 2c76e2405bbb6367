from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from starlette import exceptions
from starlette.requests import HTTPConnection

from run_log.core import ConfigurationError
from run_log.dashboard import Caller, create_app
from run_log.dashboard.access.modes import this_machine
from run_log.stores import InMemoryRunLogService

from .asking import answered, environment, guarded


@pytest.mark.parametrize("auth", [None, "none"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "testclient"])
@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8484", "127.0.0.1:8484", "[::1]:8484", "app.localhost", "testserver"]
)
async def test_this_machine_is_let_in(auth: str | None, address: str, host: str) -> None:
    """Whoever asks from this machine, by a name of its own, is let in without a name."""
    app = guarded(auth)

    assert 200 == (await answered(app, address=address, host=host)).status_code


@pytest.mark.parametrize("path", ["/", "/api/v1/workflows/-/runs", "/static/style.css", "/nowhere"])
@pytest.mark.parametrize("auth", [None, "none"])
@pytest.mark.parametrize(
    "address",
    ["10.0.0.7", "203.0.113.9", "::ffff:203.0.113.9", "2001:db8::1", "169.254.1.1", "elsewhere", ""],
)
async def test_another_machine_is_refused(auth: str | None, address: str, path: str) -> None:
    """Nobody at another address gets anything, and the answer says what to set."""
    answer = await answered(guarded(auth), path, address=address)

    assert 403 == answer.status_code
    assert "RUN_LOG_DASHBOARD_AUTH" in answer.text


async def test_a_socket_of_the_file_system_is_refused() -> None:
    """Over a Unix socket nobody has an address, and a proxy may stand before it: nobody is let in."""
    connection = HTTPConnection({"type": "http", "client": None, "headers": [(b"host", b"localhost")]})

    with pytest.raises(exceptions.HTTPException) as refused:
        await this_machine(connection)

    assert 403 == refused.value.status_code


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        "127.0.0.1.evil.example.com",
        "10.0.0.7:8484",
        "[2001:db8::1]",
        "[",
        "a.b.",
    ],
)
async def test_another_name_is_refused(host: str) -> None:
    """A page of a stranger whose name leads to this machine gets nothing."""
    assert 403 == (await answered(guarded(None), headers={"host": host})).status_code


@pytest.mark.parametrize("name", ["forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-real-ip"])
async def test_what_a_proxy_passes_on_is_refused(name: str) -> None:
    """Behind a proxy everybody seems to be on this machine, so nobody is let in."""
    assert 403 == (await answered(guarded(None), headers={name: "127.0.0.1"})).status_code


def test_the_usual_test_client_is_let_in() -> None:
    """An app with no further arguments answers the test client of its framework."""
    with TestClient(create_app(InMemoryRunLogService())) as client:
        assert 200 == client.get("/api/v1/workflows/-/runs").status_code


async def test_it_is_mounted_with_what_a_platform_knows() -> None:
    """A platform's own function says who asks, wherever the app is mounted; nothing else is asked."""

    async def of_the_platform(connection: HTTPConnection) -> Caller:
        return Caller(name=connection.headers["x-user"], may_answer=False)

    platform = FastAPI()
    platform.mount("/ops/runs", guarded(of_the_platform))
    answer = await answered(
        platform, "/ops/runs/", {"x-user": "ann"}, address="203.0.113.9", host="a.example.com"
    )
    written = await answered(
        platform, "/ops/runs/", {"x-user": "ann", "sec-fetch-site": "same-origin"}, method="POST"
    )

    assert (200, 403) == (answer.status_code, written.status_code)
    assert "read-only" in written.text


@pytest.mark.parametrize("path", ["/", "/api/v1/workflows/-/runs"])
async def test_a_platform_refuses_in_its_own_way(path: str) -> None:
    """A platform's function may send people to its sign-in, and say what it likes."""

    async def to_sign_in(_connection: HTTPConnection) -> Caller:
        raise HTTPException(303, {"why": "<b>expired"}, {"location": "/sign-in"})

    answer = await answered(guarded(to_sign_in), path)

    assert (303, "/sign-in") == (answer.status_code, answer.headers["location"])
    assert "expired" in answer.text
    assert ("<b>" in answer.text) == path.startswith("/api/")


async def test_a_function_that_fails_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a platform's function raises, nothing is shown, and why is in the log alone."""

    async def failing(connection: HTTPConnection) -> Caller:
        raise KeyError(f"canary29 {connection.url}")

    answer = await answered(guarded(failing))

    assert (500, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
    assert "canary29" not in answer.text
    assert "canary29" in caplog.text


async def test_a_function_that_says_nothing_lets_nobody_in() -> None:
    """A platform's function that returns no caller is one that fails."""

    async def silent(_connection: HTTPConnection) -> Any:
        return None

    answer = await answered(guarded(silent))

    assert (500, "application/problem+json") == (answer.status_code, answer.headers["content-type"])


@pytest.mark.parametrize("path", ["/", "/api/v1/workflows/-/runs"])
async def test_a_status_that_has_no_name(path: str) -> None:
    """A platform's function may refuse with a status of its own."""

    async def expired(_connection: HTTPConnection) -> Caller:
        raise HTTPException(440, "the session has expired")

    answer = await answered(guarded(expired), path)

    assert 440 == answer.status_code
    assert "the session has expired" in answer.text


@pytest.mark.parametrize(
    ("mode", "fields", "told"),
    [
        ("iap", {}, "RUN_LOG_DASHBOARD_AUTH=iap needs RUN_LOG_DASHBOARD_AUDIENCE"),
        ("oidc", {}, "RUN_LOG_DASHBOARD_AUTH=oidc needs RUN_LOG_DASHBOARD_AUDIENCE"),
        ("oidc", {"dashboard_audience": "a"}, "RUN_LOG_DASHBOARD_AUTH=oidc needs RUN_LOG_DASHBOARD_USERS"),
        ("iam", {}, "RUN_LOG_DASHBOARD_AUTH=iam needs Cloud Run"),
    ],
)
@pytest.mark.parametrize("how", ["setting", "argument"])
def test_it_is_never_open_by_accident(
    mode: str, fields: dict[str, str], told: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mode that lacks what it verifies with, or whom to trust, is an error that says what to do."""
    monkeypatch.delenv("K_SERVICE", raising=False)
    set_by = {**fields, "dashboard_auth": mode} if how == "setting" else fields
    for name, value in environment(**set_by).items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=told):
        create_app(InMemoryRunLogService(), auth=None if how == "setting" else mode)


def test_an_unknown_mode() -> None:
    """A mode that is none is an error that lists them."""
    with pytest.raises(ConfigurationError, match="pass none, iap, oidc or iam"):
        create_app(InMemoryRunLogService(), auth="open")


@pytest.mark.parametrize("mode", ["iap", "oidc", "iam"])
async def test_each_mode_by_its_name(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mode is chosen by its name, and then lets nobody in without a token."""
    monkeypatch.setenv("K_SERVICE", "run-log-dashboard")
    for name, value in environment(dashboard_audience="a", dashboard_users="@example.com").items():
        monkeypatch.setenv(name, value)

    assert 401 == (await answered(guarded(mode))).status_code
