"""Verifies tokens that others sign, with the keys that they publish."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal, cast

from google.auth import jwt
from google.auth.transport import requests as transport

from run_log.core.logs import get_logger

from .errors import TokenRefusedError

CERTIFICATES_URL: Final = "https://www.googleapis.com/oauth2/v1/certs"
"""Google's certificates by key id (https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions)."""

ISSUERS: Final = frozenset({"accounts.google.com", "https://accounts.google.com"})
"""Google, as the issuer of a token."""

STRIPPED_SIGNATURE: Final = "SIGNATURE_REMOVED_BY_GOOGLE"
"""Cloud Run replaces the signature with this once it has verified the token itself."""

MAX_TOKEN_CHARS: Final = 16_384
"""Room for any token that fits into the headers that servers accept; what is longer is not parsed."""

CLOCK_SKEW_SECONDS: Final = 10
FETCH_TIMEOUT_SECONDS: Final = 10.0
FETCH_EVERY_SECONDS: Final = 60.0
"""Least seconds between two fetches. A new key is known after so long."""

SHORTEST_CACHE_SECONDS: Final = 300.0
LONGEST_CACHE_SECONDS: Final = 86_400.0

_logger: Final = get_logger("run_log.http")

Fetched = tuple[Mapping[str, str], float]
"""Certificates by key id, and the seconds for which they may be kept."""


def fetched_json(url: str) -> tuple[Mapping[str, Any], float]:
    """Return the JSON object at *url*, and the seconds for which it may be kept.

    Raises whatever the transport does, or `ValueError` for a wrong answer.
    """
    request: Any = transport.Request()  # not annotated
    response = request(url, timeout=FETCH_TIMEOUT_SECONDS)
    if response.status != 200:  # noqa: PLR2004 - HTTP's own
        raise ValueError(f"the answer has the status {response.status}")
    age = re.search(r"max-age=(\d+)", response.headers.get("cache-control", ""))
    found = json.loads(response.data)
    if not isinstance(found, dict):
        raise ValueError("the answer is no JSON object")  # noqa: TRY004 - no caller passed a wrong type
    return cast("Mapping[str, Any]", found), float(age[1]) if age else 0.0


def fetch_certificates() -> Fetched:
    """Fetch Google's certificates; raises as `fetched_json` does."""
    return fetched_json(CERTIFICATES_URL)


class Certificates:
    """The certificates, or public keys, of who signs tokens.

    They are kept as long as their publisher allows, and a day longer if they cannot be fetched again.

    Args:
        fetch: Fetches them; it may block.
        publisher: Where they come from: a URL, for messages.
        now: Returns monotonic seconds.
        fetch_seconds: How long a fetch may take.
    """

    # All requests share one fetch. After the first, there is at most one a minute. So neither tokens of
    # strangers nor a fetch that hangs hold up a token whose key is known.

    def __init__(
        self,
        fetch: Callable[[], Fetched] = fetch_certificates,
        *,
        publisher: str = CERTIFICATES_URL,
        now: Callable[[], float] = time.monotonic,
        fetch_seconds: float = FETCH_TIMEOUT_SECONDS,
    ) -> None:
        self._fetch = fetch
        self._publisher = publisher
        self._now = now
        self._fetch_seconds = fetch_seconds
        self._known: Mapping[str, str] = {}
        self._tried_at = self._kept_until = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def for_key(self, key_id: str) -> Mapping[str, str]:
        """Return the certificates, with that of *key_id* if there is one.

        Raises:
            TokenRefusedError: The certificates cannot be fetched now.
        """
        # A known key waits for nothing. The first token with an unknown key waits for a new fetch. Other
        # unknown keys are refused meanwhile, except before the first fetch: then all wait for it.
        now = self._now()
        if now >= self._kept_until + LONGEST_CACHE_SECONDS:
            self._known = {}
        is_known = key_id in self._known
        if self._fetching is not None:
            if self._known and not is_known:
                raise TokenRefusedError(
                    "the keys of who signs tokens are being fetched; try again", status=503
                )
        elif (not is_known or now >= self._kept_until) and (
            not self._known or now >= self._tried_at + FETCH_EVERY_SECONDS
        ):
            self._tried_at = now
            self._fetching = asyncio.create_task(self._fetched())
        if not is_known and self._fetching is not None:
            # asyncio.wait leaves the fetch running if this request is cancelled: others wait for it.
            await asyncio.wait({self._fetching})
        if not self._known:
            what = f"the keys of who signs tokens cannot be fetched; is {self._publisher} reachable?"
            raise TokenRefusedError(what, status=503)
        return self._known

    async def _fetched(self) -> None:
        try:
            async with asyncio.timeout(self._fetch_seconds):
                known, seconds = await asyncio.to_thread(self._fetch)
        except Exception as error:  # noqa: BLE001 - any library below may raise an error of its own
            # Only its name: the text may have the address of a proxy, with a password.
            _logger.warning(
                "run_log_certificates_not_fetched", url=self._publisher, error=type(error).__name__
            )
        else:
            self._known = known
            self._kept_until = self._now() + max(SHORTEST_CACHE_SECONDS, min(seconds, LONGEST_CACHE_SECONDS))
        finally:
            self._fetching = None


async def verified_claims(
    token: str,
    certificates: Certificates,
    *,
    audience: str,
    audience_setting: str,
    algorithm: Literal["RS256", "ES256"] = "RS256",
) -> Mapping[str, Any]:
    """Return what *token* claims, once its signature, audience and times are verified.

    The issuer is left to the caller. *audience_setting* names the setting in messages.

    Raises:
        TokenRefusedError: 401 if it is not valid, 503 if that cannot be checked now.
    """
    google: Any = jwt  # not annotated
    key_id = _key_id(google, token, algorithm)
    known = await certificates.for_key(key_id)
    try:
        claims = google.decode(
            token, certs=known, audience=audience, clock_skew_in_seconds=CLOCK_SKEW_SECONDS
        )
    except Exception as error:
        # The vendor's text quotes the token, so it is not repeated.
        raise TokenRefusedError(
            f"the token is not valid here: signed by nobody known, not for {audience_setting}, or expired"
        ) from error
    return cast("Mapping[str, Any]", claims)


async def account_claims(
    token: str,
    certificates: Certificates,
    *,
    audience: str,
    settings: str,
    issuers: Collection[str] = ISSUERS,
) -> Mapping[str, Any]:
    """Return what an ID token claims of an account whose e-mail address its issuer has verified.

    Which account may do what is left to the caller. *settings* is what the names of settings begin with, for
    messages, such as ``RUN_LOG_PUSH``.

    Raises:
        TokenRefusedError: As `verified_claims` does; 401 if it is of none of *issuers*, 403 if the address is
            not verified.
    """
    if token.endswith(STRIPPED_SIGNATURE):
        raise TokenRefusedError(
            f"the platform has verified this token and removed its signature; set {settings}_AUTH=iam"
        )
    claims = await verified_claims(
        token, certificates, audience=audience, audience_setting=f"{settings}_AUDIENCE"
    )
    if claims.get("iss") not in issuers:
        raise TokenRefusedError(f"the token was not issued by {' or '.join(sorted(issuers))}")
    if claims.get("email_verified") is not True:
        raise TokenRefusedError("the issuer has not verified the e-mail address in the token", status=403)
    return claims


def _key_id(google: Any, token: str, algorithm: str) -> str:
    if len(token) > MAX_TOKEN_CHARS:
        raise TokenRefusedError("this is not a token")
    try:
        header = google.decode_header(token)
        key_id, signed_with = header.get("kid"), header.get("alg")
    except Exception as error:  # the vendor's parser raises errors of any type for bytes of a stranger
        raise TokenRefusedError("this is not a token") from error
    # Without a key's name Google's library would try all.
    if not isinstance(key_id, str) or not key_id:
        raise TokenRefusedError("the token names no key")
    # Which algorithm verifies is never the token's choice.
    if signed_with != algorithm:
        raise TokenRefusedError(f"the token is not signed with {algorithm}")
    return key_id
