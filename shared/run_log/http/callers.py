"""Who sends a request: whether this machine does, and what the token says that comes with it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from .errors import TokenRefusedError
from .serving import is_loopback
from .tokens import CLOCK_SKEW_SECONDS, MAX_TOKEN_CHARS, STRIPPED_SIGNATURE

# What starlette's TestClient calls itself. Servers name addresses.
_TEST_CLIENT: Final = "testclient"

# What proxies say of whom they ask for.
_FORWARDED: Final = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
)


def is_of_this_machine(connection: HTTPConnection) -> bool:
    """Return whether this machine sends a request, to a name of its own.

    One from another address is not, nor one from none: a proxy may send it over a Unix socket. Nor is one for
    another host, which a page of a stranger sends once its name leads here, nor one that a proxy says it
    passes on.
    """
    client = connection.client
    hosts = connection.headers.getlist("host")
    is_local = client is not None and (client.host == _TEST_CLIENT or is_loopback(client.host))
    is_forwarded = any(name in connection.headers for name in _FORWARDED)
    return is_local and not is_forwarded and all(map(_is_local_name, hosts))


def _is_local_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    # A name without a dot is no name of the internet's, so nobody there can make it lead here.
    return is_loopback(name) or name.endswith(".localhost") or not set(".:") & set(name)


def only_value(connection: HTTPConnection, header: str) -> str:
    """Return the one value of *header*; where there are several, nobody has verified them all."""
    values = connection.headers.getlist(header)
    return values[0] if len(values) == 1 else ""


def bearer_token(connection: HTTPConnection, header: str = "authorization") -> str:
    """Return the token in *header*.

    Raises:
        TokenRefusedError: There is none, or there are several.
    """
    scheme, _, token = only_value(connection, header).partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenRefusedError("no token; send one as Authorization: Bearer TOKEN")
    return token


def cloud_run_claims(connection: HTTPConnection, now: float) -> Mapping[str, Any]:
    """Return what a token claims that Cloud Run has verified, and taken the signature of.

    So the service has to require authentication. *now* is the time in seconds since the epoch.

    Raises:
        TokenRefusedError: There is no such token, or it has expired.
    """
    # Of two tokens Cloud Run verifies this one only, and the other may say anything
    # (https://cloud.google.com/run/docs/authenticating/service-to-service).
    own = "x-serverless-authorization"
    token = bearer_token(connection, own if own in connection.headers else "authorization")
    head, _, signature = token.rpartition(".")
    if signature != STRIPPED_SIGNATURE:
        raise TokenRefusedError("Cloud Run has not verified this token; does it require authentication?")
    claims = _payload(head)
    expires = claims.get("exp")
    if not isinstance(expires, int) or expires + CLOCK_SKEW_SECONDS < now:
        raise TokenRefusedError("the token has expired")
    return claims


def _payload(head: str) -> Mapping[str, Any]:
    try:
        text = head.split(".")[1] if len(head) <= MAX_TOKEN_CHARS else ""
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (IndexError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise TokenRefusedError("this is not a token")
    return cast("Mapping[str, Any]", found)
