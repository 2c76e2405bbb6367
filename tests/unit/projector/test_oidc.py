from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt
from google.auth import exceptions as auth_errors

from run_log.core import PushRefusedError
from run_log.projector._oidc import (
    LONGEST_CACHE_SECONDS,
    SHORTEST_CACHE_SECONDS,
    STRIPPED_SIGNATURE,
    Certificates,
    Fetched,
    TokenVerifier,
)

AUDIENCE = "https://projector.example.com/"
ACCOUNT = "pusher@project.iam.gserviceaccount.com"


_ERRORS: Any = auth_errors  # not annotated
_AWAY: Exception = _ERRORS.TransportError("away")


@cache
def _key(key_id: str) -> tuple[str, str]:
    """Return a private key and its self-signed certificate, as PEM."""
    assert key_id
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return private.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


def _token(claims: Mapping[str, Any] | None = None, *, key_id: str = "a", signed_by: str = "a") -> str:
    now = datetime.now(UTC).timestamp()
    good = {
        "iss": "https://accounts.google.com",
        "aud": AUDIENCE,
        "email": ACCOUNT,
        "email_verified": True,
        "iat": int(now),
        "exp": int(now + 3_600),
    }
    vendor: Any = crypt
    signer = vendor.RSASigner.from_string(_key(signed_by)[0], key_id)
    google: Any = jwt
    token: bytes = google.encode(signer, {**good, **(claims or {})}, key_id=key_id)
    return token.decode()


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
        return {key_id: _key(key_id)[1] for key_id in self.key_ids}, self.max_age


class _Clock:
    now = 1_000.0

    def __call__(self) -> float:
        """Return monotonic seconds."""
        return self.now


def _verifier(google: _Google, clock: _Clock | None = None) -> TokenVerifier:
    certificates = Certificates(google.fetch, now=clock or _Clock())
    return TokenVerifier(audience=AUDIENCE, service_account=ACCOUNT, certificates=certificates)


async def _status(verifier: TokenVerifier, authorization: str | None) -> int:
    try:
        await verifier(authorization)
    except PushRefusedError as error:
        return error.status
    return 200


@pytest.mark.parametrize("issuer", ["accounts.google.com", "https://accounts.google.com"])
async def test_a_token_of_pubsub_is_let_in(issuer: str) -> None:
    """A token that Google signed for the service account and this audience is let in."""
    assert 200 == await _status(_verifier(_Google("a")), f"Bearer {_token({'iss': issuer})}")


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
    assert status == await _status(_verifier(_Google("a")), f"Bearer {_token(claims)}")


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer a.b.c", "Bearer x"]
)
async def test_no_token_is_refused(authorization: str | None) -> None:
    """Without a token, or with something else in its place, nobody is let in."""
    assert 401 == await _status(_verifier(_Google("a")), authorization)


async def test_a_token_that_somebody_else_signed_is_refused() -> None:
    """A token that names Google's key and is signed with another is refused."""
    assert 401 == await _status(_verifier(_Google("a")), f"Bearer {_token(signed_by='b')}")


async def test_a_token_whose_signature_the_platform_removed() -> None:
    """A token that Cloud Run has verified and stripped is refused, with the setting that is right there."""
    stripped = f"{_token().rpartition('.')[0]}.{STRIPPED_SIGNATURE}"

    with pytest.raises(PushRefusedError, match="RUN_LOG_PUSH_AUTH=iam"):
        await _verifier(_Google("a"))(f"Bearer {stripped}")


async def test_certificates_are_kept() -> None:
    """Certificates are fetched once for as long as Google says, and again after that."""
    google, clock = _Google("a", max_age=3_600), _Clock()
    verifier = _verifier(google, clock)
    for _ in range(5):
        assert 200 == await _status(verifier, f"Bearer {_token()}")
    fetched_first = google.fetches
    clock.now += 3_601
    await verifier(f"Bearer {_token()}")

    assert (1, 2) == (fetched_first, google.fetches)


@pytest.mark.parametrize(("max_age", "kept"), [(0, SHORTEST_CACHE_SECONDS), (1e9, LONGEST_CACHE_SECONDS)])
async def test_certificates_are_kept_within_bounds(max_age: float, kept: float) -> None:
    """Whatever Google says, certificates are kept for minutes at least and a day at most."""
    google, clock = _Google("a", max_age=max_age), _Clock()
    verifier = _verifier(google, clock)
    await verifier(f"Bearer {_token()}")
    clock.now += kept - 1
    await verifier(f"Bearer {_token()}")
    before = google.fetches
    clock.now += 1
    await verifier(f"Bearer {_token()}")

    assert (1, 2) == (before, google.fetches)


async def test_a_new_key_is_fetched() -> None:
    """A key that Google has begun to sign with is fetched; unknown ones are not, again and again."""
    google, clock = _Google("a"), _Clock()
    verifier = _verifier(google, clock)
    await verifier(f"Bearer {_token()}")
    google.key_ids = ("a", "b")

    early = [await _status(verifier, f"Bearer {_token(key_id='b', signed_by='b')}") for _ in range(5)]
    fetched_early = google.fetches
    clock.now += SHORTEST_CACHE_SECONDS
    late = await _status(verifier, f"Bearer {_token(key_id='b', signed_by='b')}")

    assert ([401] * 5, 1) == (early, fetched_early)
    assert (200, 2) == (late, google.fetches)


@pytest.mark.parametrize("error", [_AWAY, OSError("away"), ValueError("no JSON")])
async def test_certificates_that_cannot_be_had(error: Exception) -> None:
    """While the certificates cannot be had a push is told to come again, and then let in."""
    google = _Google("a")
    google.error = error
    verifier = _verifier(google)

    away = await _status(verifier, f"Bearer {_token()}")
    google.error = None

    assert (503, 200) == (away, await _status(verifier, f"Bearer {_token()}"))
