"""Who may push: the token that Pub/Sub sends with each request, verified."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from google.auth import exceptions as auth_errors
from google.auth import jwt
from google.auth.transport import requests as transport

from run_log.core import PushRefusedError

CERTIFICATES_URL: Final = "https://www.googleapis.com/oauth2/v1/certs"
"""Google's certificates, by key id (https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions)."""

ISSUERS: Final = frozenset({"accounts.google.com", "https://accounts.google.com"})

STRIPPED_SIGNATURE: Final = "SIGNATURE_REMOVED_BY_GOOGLE"
"""What Cloud Run puts in place of a signature that it has verified itself."""

CLOCK_SKEW_SECONDS: Final = 10
FETCH_TIMEOUT_SECONDS: Final = 10.0
SHORTEST_CACHE_SECONDS: Final = 300.0
LONGEST_CACHE_SECONDS: Final = 86_400.0

Fetched = tuple[Mapping[str, str], float]
"""Certificates by key id, and for how many seconds they may be kept."""


class Certificates:
    """The certificates that tokens are signed with, kept as long as they may be.

    Args:
        fetch: Gets them, blocking.
        now: Monotonic seconds.
    """

    def __init__(
        self, fetch: Callable[[], Fetched] | None = None, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch or fetch_certificates
        self._now = now
        self._known: Mapping[str, str] = {}
        self._fetched_at = self._kept_until = float("-inf")
        self._lock = asyncio.Lock()

    async def for_key(self, key_id: str) -> Mapping[str, str]:
        """Return the certificates, with that of *key_id* if there is one.

        A key that is not known has them fetched anew, within `SHORTEST_CACHE_SECONDS` once: whoever sends
        tokens of their own making cannot have them fetched again and again.

        Raises:
            PushRefusedError: They cannot be had now.
        """
        async with self._lock:
            is_new = key_id not in self._known and self._now() >= self._fetched_at + SHORTEST_CACHE_SECONDS
            if is_new or self._now() >= self._kept_until:
                try:
                    self._known, seconds = await asyncio.to_thread(self._fetch)
                except (auth_errors.GoogleAuthError, OSError, ValueError) as error:
                    raise PushRefusedError(
                        f"Google's certificates cannot be had; is {CERTIFICATES_URL} reachable? ({error})",
                        status=503,
                    ) from error
                self._fetched_at = self._now()
                kept = max(SHORTEST_CACHE_SECONDS, min(seconds, LONGEST_CACHE_SECONDS))
                self._kept_until = self._fetched_at + kept
        return self._known


class TokenVerifier:
    """Lets in who has a token that Google signed for a service account, for this very service.

    Args:
        audience: What the subscription's push configuration names as audience.
        service_account: The e-mail address of its service account.
        certificates: What tokens are signed with.
    """

    def __init__(self, *, audience: str, service_account: str, certificates: Certificates) -> None:
        self._audience = audience
        self._service_account = service_account
        self._certificates = certificates

    async def __call__(self, authorization: str | None) -> None:
        """Check the header ``Authorization`` of a request.

        Raises:
            PushRefusedError: 401 without a valid token, 403 with somebody else's, 503 where that cannot be
                told now.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise PushRefusedError(
                "no token; give the subscription's push configuration an OIDC service account", status=401
            )
        if token.endswith(STRIPPED_SIGNATURE):
            raise PushRefusedError(
                "the platform has verified this token and removed its signature; set RUN_LOG_PUSH_AUTH=iam",
                status=401,
            )
        claims = await self._claims(token)
        if claims.get("iss") not in ISSUERS:
            raise PushRefusedError(f"the token is of {claims.get('iss')!r}, not of Google", status=401)
        if claims.get("email") != self._service_account or claims.get("email_verified") is not True:
            raise PushRefusedError(
                f"the token is of {claims.get('email')!r}, not of RUN_LOG_PUSH_SERVICE_ACCOUNT", status=403
            )

    async def _claims(self, token: str) -> Mapping[str, Any]:
        google: Any = jwt  # not annotated
        try:
            key_id = str(google.decode_header(token).get("kid", ""))
            certificates = await self._certificates.for_key(key_id)
            claims = google.decode(
                token,
                certs=certificates,
                audience=self._audience,
                clock_skew_in_seconds=CLOCK_SKEW_SECONDS,
            )
        except (auth_errors.GoogleAuthError, ValueError) as error:
            raise PushRefusedError(
                f"the token is not valid for this service ({error})", status=401
            ) from error
        return cast("Mapping[str, Any]", claims)


def fetch_certificates() -> Fetched:
    """Get Google's certificates.

    Raises:
        GoogleAuthError: They cannot be reached.
        ValueError: What came is something else.
    """
    request: Any = transport.Request()  # not annotated
    response = request(CERTIFICATES_URL, timeout=FETCH_TIMEOUT_SECONDS)
    if response.status != 200:  # noqa: PLR2004 - HTTP's own
        raise ValueError(f"answered with {response.status}")
    age = re.search(r"max-age=(\d+)", response.headers.get("cache-control", ""))
    certificates = json.loads(response.data)
    if not isinstance(certificates, dict):
        raise ValueError("answered with something else than certificates")  # noqa: TRY004 - of their making
    return cast("Mapping[str, str]", certificates), float(age[1]) if age else 0.0
