"""Tokens as Google signs them, by keys of our own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt

IAP_AUDIENCE: Final = "/projects/1/locations/europe-west1/services/run-log-dashboard"
AUDIENCE: Final = "https://projector.example.com/"
ACCOUNT: Final = "pusher@project.iam.gserviceaccount.com"


@cache
def key_pair(key_id: str) -> tuple[str, str]:
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


@cache
def ec_key_pair(key_id: str) -> tuple[str, str]:
    """Return a private and a public key as IAP has them, as PEM."""
    assert key_id
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


def iap_token(claims: Mapping[str, Any] | None = None, *, key_id: str = "a", signed_by: str = "a") -> str:
    """Return a token as IAP signs it for ACCOUNT, but for the *claims* that differ."""
    good = {"iss": "https://cloud.google.com/iap", "aud": IAP_AUDIENCE}
    vendor: Any = crypt
    signer = vendor.ES256Signer.from_string(ec_key_pair(signed_by)[0], key_id)
    return _signed({**good, **(claims or {})}, signer)


def signed_token(claims: Mapping[str, Any] | None = None, *, key_id: str = "a", signed_by: str = "a") -> str:
    """Return a token that lets in ACCOUNT, but for the *claims* that differ."""
    vendor: Any = crypt
    return _signed(claims or {}, vendor.RSASigner.from_string(key_pair(signed_by)[0], key_id))


def _signed(claims: Mapping[str, Any], signer: Any) -> str:
    now = datetime.now(UTC).timestamp()
    good = {
        "iss": "https://accounts.google.com",
        "aud": AUDIENCE,
        "email": ACCOUNT,
        "email_verified": True,
        "iat": int(now),
        "exp": int(now + 3_600),
    }
    google: Any = jwt
    token: bytes = google.encode(signer, {**good, **claims})
    return token.decode()
