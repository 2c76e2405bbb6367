"""Verifies the token that Pub/Sub sends with each push."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from google.auth import jwt
from google.auth.transport import requests as transport

from run_log.core.errors import PushRefusedError
from run_log.core.logs import get_logger

CERTIFICATES_URL: Final = "https://www.googleapis.com/oauth2/v1/certs"
"""Google's certificates by key id (https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions)."""

ISSUERS: Final = frozenset({"accounts.google.com", "https://accounts.google.com"})

STRIPPED_SIGNATURE: Final = "SIGNATURE_REMOVED_BY_GOOGLE"
"""Cloud Run replaces the signature with this once it has verified the token itself."""

CLOCK_SKEW_SECONDS: Final = 10
FETCH_TIMEOUT_SECONDS: Final = 10.0
FETCH_EVERY_SECONDS: Final = 60.0
"""Least seconds between two fetches. A new key of Google is known after so long."""

SHORTEST_CACHE_SECONDS: Final = 300.0
LONGEST_CACHE_SECONDS: Final = 86_400.0

_logger: Final = get_logger("run_log.projector")

Fetched = tuple[Mapping[str, str], float]
"""Certificates by key id, and the seconds for which they may be kept."""


class Certificates:
    """The certificates of the keys that Google signs tokens with.

    They are kept as long as Google allows, and a day longer if they cannot be fetched again. *fetch* may
    block.
    """

    # All requests share one fetch. After the first, there is at most one a minute. So neither tokens of
    # strangers nor a fetch that hangs hold up a token whose key is known.

    def __init__(
        self,
        fetch: Callable[[], Fetched] | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        fetch_seconds: float = FETCH_TIMEOUT_SECONDS,
    ) -> None:
        self._fetch = fetch or fetch_certificates
        self._now = now
        self._fetch_seconds = fetch_seconds
        self._known: Mapping[str, str] = {}
        self._tried_at = self._kept_until = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def for_key(self, key_id: str) -> Mapping[str, str]:
        """Return the certificates, with that of *key_id* if Google has it.

        Raises:
            PushRefusedError: The certificates cannot be fetched now.
        """
        # A known key waits for nothing. The first token with an unknown key waits for a new fetch. Other
        # unknown keys are refused meanwhile, except before the first fetch: then all wait for it.
        now = self._now()
        if now >= self._kept_until + LONGEST_CACHE_SECONDS:
            self._known = {}
        is_known = key_id in self._known
        if self._fetching is not None:
            if self._known and not is_known:
                raise PushRefusedError("Google's certificates are being fetched; try again", status=503)
        elif (not is_known or now >= self._kept_until) and (
            not self._known or now >= self._tried_at + FETCH_EVERY_SECONDS
        ):
            self._tried_at = now
            self._fetching = asyncio.create_task(self._fetched())
        if not is_known and self._fetching is not None:
            # asyncio.wait leaves the fetch running if this request is cancelled: others wait for it.
            await asyncio.wait({self._fetching})
        if not self._known:
            what = f"Google's certificates cannot be fetched; is {CERTIFICATES_URL} reachable?"
            raise PushRefusedError(what, status=503)
        return self._known

    async def _fetched(self) -> None:
        try:
            async with asyncio.timeout(self._fetch_seconds):
                known, seconds = await asyncio.to_thread(self._fetch)
        except Exception as error:  # noqa: BLE001 - any library below may raise an error of its own
            # Only its name: the text may have the address of a proxy, with a password.
            _logger.warning(
                "run_log_certificates_not_fetched", url=CERTIFICATES_URL, error=type(error).__name__
            )
        else:
            self._known = known
            self._kept_until = self._now() + max(SHORTEST_CACHE_SECONDS, min(seconds, LONGEST_CACHE_SECONDS))
        finally:
            self._fetching = None


class TokenVerifier:
    """Accepts tokens that Google signed for one service account and one audience.

    Both are as in the subscription's push configuration; the service account is an e-mail address.
    """

    def __init__(self, *, audience: str, service_account: str, certificates: Certificates) -> None:
        self._audience = audience
        self._service_account = service_account
        self._certificates = certificates

    async def __call__(self, authorization: str | None) -> None:
        """Check the header ``Authorization`` of a request.

        Raises:
            PushRefusedError: 401 without a valid token, 403 with the token of another account, 503 if that
                cannot be checked now.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise PushRefusedError(
                "no token; set an OIDC service account in the subscription's push configuration", status=401
            )
        if token.endswith(STRIPPED_SIGNATURE):
            raise PushRefusedError(
                "the platform has verified this token and removed its signature; set RUN_LOG_PUSH_AUTH=iam",
                status=401,
            )
        claims = await self._claims(token)
        if claims.get("iss") not in ISSUERS:
            raise PushRefusedError("the token was not issued by Google", status=401)
        if claims.get("email") != self._service_account or claims.get("email_verified") is not True:
            raise PushRefusedError("the token is not of the account RUN_LOG_PUSH_SERVICE_ACCOUNT", status=403)

    async def _claims(self, token: str) -> Mapping[str, Any]:
        google: Any = jwt  # not annotated
        try:
            key_id = google.decode_header(token).get("kid")
        except Exception as error:  # the vendor's parser raises errors of any type for bytes of a stranger
            raise PushRefusedError("this is not a token", status=401) from error
        if not isinstance(key_id, str):
            raise PushRefusedError("the token names no key", status=401)
        certificates = await self._certificates.for_key(key_id)
        try:
            claims = google.decode(
                token,
                certs=certificates,
                audience=self._audience,
                clock_skew_in_seconds=CLOCK_SKEW_SECONDS,
            )
        except Exception as error:
            # The vendor's text quotes the token, so it is not repeated.
            raise PushRefusedError(
                "the token is not valid here: not Google's, not for RUN_LOG_PUSH_AUDIENCE, or expired",
                status=401,
            ) from error
        return cast("Mapping[str, Any]", claims)


def fetch_certificates() -> Fetched:
    """Fetch Google's certificates. Raises whatever the transport does, or `ValueError` for a wrong answer."""
    request: Any = transport.Request()  # not annotated
    response = request(CERTIFICATES_URL, timeout=FETCH_TIMEOUT_SECONDS)
    if response.status != 200:  # noqa: PLR2004 - HTTP's own
        raise ValueError(f"the answer has the status {response.status}")
    age = re.search(r"max-age=(\d+)", response.headers.get("cache-control", ""))
    certificates = json.loads(response.data)
    if not isinstance(certificates, dict):
        raise ValueError("the answer holds no certificates")  # noqa: TRY004 - no caller passed a wrong type
    return cast("Mapping[str, str]", certificates), float(age[1]) if age else 0.0
