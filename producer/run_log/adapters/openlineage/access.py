"""Who may send events: this machine alone, whoever has a token of Google's, or whom Cloud Run has let in."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

from starlette.requests import HTTPConnection

from run_log.core import ConfigurationError, Settings
from run_log.core.settings import is_cloud_run_service
from run_log.http.callers import bearer_token, cloud_run_claims, is_of_this_machine
from run_log.http.errors import TokenRefusedError
from run_log.http.tokens import Certificates, account_claims

Authenticate = Callable[[HTTPConnection], Awaitable[object]]
"""Returns if a request may send events, or raises: a `TokenRefusedError`, or an ``HTTPException``."""

# What browsers add to a request that a page sends.
_OF_BROWSERS: Final = ("origin", "sec-fetch-site")


def authentication(settings: Settings, mode: str | None = None) -> Authenticate:
    """Return what checks who sends events in *mode*, or in that of the settings.

    Raises:
        ConfigurationError: The mode is unknown, needs more settings, or would let anybody in.
    """
    mode = settings.openlineage_auth if mode is None else mode
    accounts = frozenset(account.casefold() for account in settings.openlineage_accounts)
    match mode:
        case "none":
            return this_machine
        case "oidc":
            if not settings.openlineage_audience or not accounts:
                raise ConfigurationError(
                    "RUN_LOG_OPENLINEAGE_AUTH=oidc needs RUN_LOG_OPENLINEAGE_AUDIENCE and "
                    "RUN_LOG_OPENLINEAGE_ACCOUNTS; set them to the URL that tokens are made for, and to the "
                    "e-mail addresses of the accounts that send events"
                )
            return GoogleTokens(audience=settings.openlineage_audience, accounts=accounts)
        case "iam":
            if not is_cloud_run_service():
                raise ConfigurationError(
                    "RUN_LOG_OPENLINEAGE_AUTH=iam needs Cloud Run to check who sends events, and this "
                    "process is not there (K_SERVICE is not set); set it to oidc, or unset it for this "
                    "machine alone"
                )
            return CloudRunTokens(accounts=accounts)
        case _:
            raise ConfigurationError(f"auth is {mode!r}; pass none, oidc or iam, or a function")


async def this_machine(connection: HTTPConnection) -> None:
    """Let programs on this machine in, and no page that a browser shows."""
    if not is_of_this_machine(connection) or any(name in connection.headers for name in _OF_BROWSERS):
        raise TokenRefusedError(
            "only programs on this machine are let in, by a name of its own; to let others in, set "
            "RUN_LOG_OPENLINEAGE_AUTH to oidc or iam, or pass auth= to create_app",
            status=403,
        )


class GoogleTokens:
    """Lets in accounts with a token that Google has signed for one audience."""

    def __init__(
        self, *, audience: str, accounts: Collection[str], certificates: Certificates | None = None
    ) -> None:
        self._audience = audience
        self._accounts = accounts
        self._certificates = certificates or Certificates()

    async def __call__(self, connection: HTTPConnection) -> None:
        """See `Authenticate`."""
        claims = await account_claims(
            bearer_token(connection),
            self._certificates,
            audience=self._audience,
            settings="RUN_LOG_OPENLINEAGE",
        )
        _check_account(claims, self._accounts)


class CloudRunTokens:
    """Lets in whom Cloud Run has let in; see `cloud_run_claims`."""

    def __init__(self, *, accounts: Collection[str] = (), now: Callable[[], float] = time.time) -> None:
        self._accounts = accounts
        self._now = now

    async def __call__(self, connection: HTTPConnection) -> None:
        """See `Authenticate`."""
        claims = cloud_run_claims(connection, self._now())
        if self._accounts:
            _check_account(claims, self._accounts)


def _check_account(claims: Mapping[str, Any], accounts: Collection[str]) -> None:
    if str(claims.get("email")).casefold() not in accounts:
        raise TokenRefusedError(
            "this account may not send events; RUN_LOG_OPENLINEAGE_ACCOUNTS says which may", status=403
        )
