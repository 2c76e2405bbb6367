"""What browsers are told of every answer."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders

# Everything comes from here, and nothing else is loaded, framed, sent or run: neither text that others wrote,
# nor a page of others around ours.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_OF_ALL: Final = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
_FOR_A_YEAR: Final = "private, max-age=31536000, immutable"
_OK: Final = (200, 206, 304)


def add_headers(headers: MutableHeaders, *, status: int, is_versioned: bool) -> None:
    """Add to *headers* what every answer has; *is_versioned* is whether its URL changes with its content."""
    for name, value in _OF_ALL.items():
        headers[name] = value
    headers.setdefault("cache-control", _FOR_A_YEAR if is_versioned and status in _OK else "no-store")
