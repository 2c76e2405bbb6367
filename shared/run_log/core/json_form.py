"""The parts of the public JSON form: times, durations and payloads.

What queries return has a method `to_json`. Its form is the same in the library, on the command line and over
HTTP: names in snake_case, times by RFC 3339, durations as milliseconds under ``..._ms``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from .clock import rfc3339
from .nearest import is_json
from .payload import decode_json, encode_json

_MILLISECOND: Final = timedelta(milliseconds=1)


def time_json(moment: datetime | None) -> str | None:
    """Return *moment* in UTC with microseconds, or None for none."""
    return None if moment is None else rfc3339(moment)


def duration_json(duration: timedelta | None) -> float | None:
    """Return *duration* in milliseconds, or None for none."""
    return None if duration is None else duration / _MILLISECOND


def payload_json(payload: dict[str, Any]) -> dict[str, Any]:
    """Return *payload* itself if it is JSON, as that of a stored run is, or a copy in its nearest form."""
    return payload if is_json(payload) else decode_json(encode_json(payload))
