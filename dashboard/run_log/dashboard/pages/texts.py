"""How pages write times, durations, and what others wrote."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from markupsafe import Markup, escape

from run_log.core.clock import rfc3339
from run_log.core.payload import encode_json

_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400
_DEEPEST: Final = 60
# Of a duration that fits a timedelta.
_LONGEST_MS: Final = 8e16
_TENTHS_UP_TO: Final = 10

# Controls, and what turns the direction of the text around it: as they are, an id could look like another.
# Not the joiners: many scripts need them.
_UNSEEN: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


def visible(value: object) -> object:
    """Return *value*, if it is a text, with escapes, as Python writes them, for what nobody would see."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    if value.isspace():  # a link of blanks is none that anybody could find
        return "␣" * len(value)
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), value)


def as_given(text: str) -> Markup:
    """Return *text* escaped but otherwise as it is, for a field whose content is sent back."""
    return escape(text)


def first_line(text: str | None, most: int = 160) -> str:
    """Return the first line of *text* that is not blank, cut if it is longer than *most* characters."""
    line = next((found for each in (text or "").splitlines() if (found := each.strip())), "")
    return line if len(line) <= most else f"{line[: most - 1]}…"


def took(duration: timedelta) -> str:
    """Return a duration as its two largest units: ``843 ms``, ``1.5 s``, ``2 m 13 s``, ``3 d 4 h``."""
    seconds = duration.total_seconds()
    if seconds < 1:
        return f"{max(seconds, 0) * 1_000:.0f} ms"
    if seconds < _TENTHS_UP_TO:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} m {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} m"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def took_ms(milliseconds: float) -> str:
    """Return a duration of so many milliseconds, as `took` does; any number has a form."""
    return took(timedelta(milliseconds=min(milliseconds, _LONGEST_MS)))


def moment(value: datetime, now: datetime | None = None) -> Markup:
    """Return the element ``time`` of *value*, in UTC; with *now*, without the year if that is the same.

    The text is a part of ``YYYY-MM-DD HH:MM:SS``, so that a script can show the same part of another zone's.
    """
    value = value.astimezone(UTC)
    exact = _short(rfc3339(value))
    text = f"{exact[:10]} {exact[11:19]}"
    if now is not None and now.year == value.year:
        text = text[5:]
    return Markup(f'<time datetime="{exact}">{text}</time>')  # noqa: S704 - digits


def since(begun: datetime, now: datetime) -> Markup:
    """Return how long ago *begun* was, for a script to keep up to date."""
    told = took(max(now - begun, timedelta(0)))
    return Markup(f'<span data-since="{_short(rfc3339(begun))}">{told}</span>')  # noqa: S704 - digits


def _short(text: str) -> str:
    # Seconds are enough where only seconds are shown, and a list has many times.
    return f"{text[:-8]}Z"


def json_text(value: object) -> str:
    """Return *value* as JSON for people: indented, or on one line where it is very deep."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return encode_json(value)
    return text if f"\n{' ' * _DEEPEST}" not in text else json.dumps(value, ensure_ascii=False)
