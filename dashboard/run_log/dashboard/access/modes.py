"""The ways to tell who asks: this machine alone, tokens of IAP or OpenID Connect, and Cloud Run's word."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from run_log.core import ConfigurationError, Settings
from run_log.core.settings import is_cloud_run_service
from run_log.http.callers import bearer_token, cloud_run_claims, is_of_this_machine, only_value
from run_log.http.errors import TokenRefusedError
from run_log.http.tokens import ISSUERS, Certificates, account_claims, verified_claims

from .callers import Authenticate, Caller
from .keys import IAP_KEYS_URL, fetch_iap_keys, issuer_keys

IAP_HEADER: Final = "x-goog-iap-jwt-assertion"
"""Where IAP puts its token (https://cloud.google.com/iap/docs/signed-headers-howto)."""

IAP_ISSUER: Final = "https://cloud.google.com/iap"
_IAP_PREFIX: Final = "accounts.google.com:"

# As long as an e-mail address can be.
_MAX_NAME_CHARS: Final = 320


def authentication(settings: Settings, mode: str | None = None) -> Authenticate:
    """Return what tells who asks in *mode*, or in that of the settings.

    Raises:
        ConfigurationError: The mode is unknown, needs more settings, or would let anybody in.
    """
    mode = settings.dashboard_auth if mode is None else mode
    users = frozenset(user.casefold() for user in settings.dashboard_users)
    match mode:
        case "none":
            return this_machine
        case "iap":
            audience = _audience(settings, "iap", "/projects/NUMBER/locations/REGION/services/NAME")
            return IapTokens(audience=audience, users=users)
        case "oidc":
            audience = _audience(settings, "oidc", "the client id, or the URL, that tokens are made for")
            if not users:
                raise ConfigurationError(
                    "RUN_LOG_DASHBOARD_AUTH=oidc needs RUN_LOG_DASHBOARD_USERS: without it, everybody whom "
                    "the issuer knows could get in; set it to e-mail addresses, or to @ and a domain"
                )
            return OidcTokens(issuer=settings.dashboard_issuer, audience=audience, users=users)
        case "iam":
            if not is_cloud_run_service():
                raise ConfigurationError(
                    "RUN_LOG_DASHBOARD_AUTH=iam needs Cloud Run to check who asks, and this process is not "
                    "there (K_SERVICE is not set); set it to oidc, or unset it for this machine alone"
                )
            return CloudRunTokens(users=users)
        case _:
            raise ConfigurationError(f"auth is {mode!r}; pass none, iap, oidc or iam, or a function")


def _audience(settings: Settings, mode: str, hint: str) -> str:
    if not settings.dashboard_audience:
        raise ConfigurationError(
            f"RUN_LOG_DASHBOARD_AUTH={mode} needs RUN_LOG_DASHBOARD_AUDIENCE; set it to {hint}"
        )
    return settings.dashboard_audience


async def this_machine(connection: HTTPConnection) -> Caller:
    """Let everybody on this machine in, without a name; see `is_of_this_machine`."""
    if not is_of_this_machine(connection):
        raise HTTPException(
            403,
            "only this machine is let in, by its own name; to let others in, set RUN_LOG_DASHBOARD_AUTH to "
            "iap, oidc or iam, or pass auth= to create_app",
        )
    return Caller(name=None)


class IapTokens:
    """Lets in whom Identity-Aware Proxy has let in for one audience, as its token says."""

    def __init__(
        self, *, audience: str, users: Collection[str] = (), keys: Certificates | None = None
    ) -> None:
        self._audience = audience
        self._users = users
        self._keys = keys or Certificates(fetch_iap_keys, publisher=IAP_KEYS_URL)

    async def __call__(self, connection: HTTPConnection) -> Caller:
        """Return who asks; see `Authenticate`."""
        token = only_value(connection, IAP_HEADER)
        if not token:
            raise HTTPException(401, "no token of IAP; open the dashboard through Identity-Aware Proxy")
        with _refusing():
            claims = await verified_claims(
                token,
                self._keys,
                audience=self._audience,
                audience_setting="RUN_LOG_DASHBOARD_AUDIENCE",
                algorithm="ES256",
            )
        if claims.get("iss") != IAP_ISSUER:
            raise HTTPException(401, "the token is not of IAP")
        email = claims.get("email")
        name = email.removeprefix(_IAP_PREFIX) if isinstance(email, str) else None
        return _let_in(name, claims, self._users, is_of_google=False)


class OidcTokens:
    """Lets in who has a token that an issuer of OpenID Connect has signed for one audience.

    *users* are e-mail addresses, and ``@domain`` for all of one, in lower case.
    """

    def __init__(
        self, *, issuer: str, audience: str, users: Collection[str], keys: Certificates | None = None
    ) -> None:
        self._issuers = ISSUERS if issuer in ISSUERS else frozenset({issuer})
        self._audience = audience
        self._users = users
        self._keys = keys or issuer_keys(issuer)

    async def __call__(self, connection: HTTPConnection) -> Caller:
        """Return who asks; see `Authenticate`."""
        with _refusing():
            claims = await account_claims(
                bearer_token(connection),
                self._keys,
                audience=self._audience,
                settings="RUN_LOG_DASHBOARD",
                issuers=self._issuers,
            )
        return _let_in(claims.get("email"), claims, self._users, is_of_google=self._issuers == ISSUERS)


class CloudRunTokens:
    """Lets in whom Cloud Run has let in; see `cloud_run_claims`."""

    def __init__(self, *, users: Collection[str] = (), now: Callable[[], float] = time.time) -> None:
        self._users = users
        self._now = now

    async def __call__(self, connection: HTTPConnection) -> Caller:
        """Return who asks; see `Authenticate`."""
        with _refusing():
            claims = cloud_run_claims(connection, self._now())
        return _let_in(claims.get("email"), claims, self._users, is_of_google=True)


@contextlib.contextmanager
def _refusing() -> Generator[None]:
    """Answer what is wrong with a token."""
    try:
        yield
    except TokenRefusedError as error:
        raise HTTPException(error.status, str(error)) from error


def _let_in(name: object, claims: Mapping[str, Any], users: Collection[str], *, is_of_google: bool) -> Caller:
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME_CHARS or not name.isprintable():
        raise HTTPException(403, "the token names nobody by an e-mail address")
    known = name.casefold()
    domain = known.rpartition("@")[2]
    # Anybody can have a Google account for an address of any domain. Only `hd` says that it is the domain's
    # (https://developers.google.com/identity/openid-connect/openid-connect#an-id-tokens-payload).
    is_of_domain = not is_of_google or claims.get("hd") == domain
    if users and known not in users and not (f"@{domain}" in users and is_of_domain):
        raise HTTPException(403, "this account is not let in; RUN_LOG_DASHBOARD_USERS says who is")
    return Caller(name=name)
