"""The keys that tokens are verified with, as their publishers have them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from run_log.http.tokens import CERTIFICATES_URL, ISSUERS, Certificates, Fetched, fetched_json

IAP_KEYS_URL: Final = "https://www.gstatic.com/iap/verify/public_key"
"""IAP's public keys by key id (https://cloud.google.com/iap/docs/signed-headers-howto)."""


def fetch_iap_keys() -> Fetched:
    """Fetch IAP's keys; raises as `fetched_json` does."""
    return fetched_json(IAP_KEYS_URL)


def issuer_keys(issuer: str) -> Certificates:
    """Return the keys of an *issuer* of OpenID Connect: a URL."""
    if issuer in ISSUERS:
        return Certificates(publisher=CERTIFICATES_URL)
    about = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    return Certificates(partial(_fetch_issuer_keys, about), publisher=about)


def _fetch_issuer_keys(about: str) -> Fetched:
    # https://openid.net/specs/openid-connect-discovery-1_0.html
    described, _ = fetched_json(about)
    found, seconds = fetched_json(str(described["jwks_uri"]))
    return {
        str(key["kid"]): _as_pem(key) for key in found["keys"] if key.get("kty") == "RSA" and key.get("kid")
    }, seconds


def _as_pem(key: Mapping[str, Any]) -> str:
    """Return an RSA key as PEM, which is what Google's library takes; *key* is a JWK."""
    public = RSAPublicNumbers(e=_number(key["e"]), n=_number(key["n"])).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
