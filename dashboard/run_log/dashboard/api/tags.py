"""Entity tags: what tells one state of an answer from the next, by RFC 9110.

The tag of a run is ``"VERSION;DIGEST"``. An answer to a pause asks for the version alone, for another version
of the server may show the same state with another field more.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import quote, unquote

from run_log.core import InvalidArgumentError, Version

_DIGEST_LENGTH: Final = 16
_TAG: Final = re.compile(r'(W/)?"([^"]*)"')


def tag_of(body: bytes, version: Version | None = None) -> str:
    """Return the strong tag of *body*, which shows a run in its state of that *version*."""
    # Another program may have made the event's id of any printable character.
    shown = "" if version is None else f"{quote(version.text, safe=':!')};"
    return f'"{shown}{hashlib.sha256(body).hexdigest()[:_DIGEST_LENGTH]}"'


def is_known(if_none_match: str | None, tag: str) -> bool:
    """Return whether the client that sends this header has what *tag* stands for."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag[1:-1] in {known for _, known in _TAG.findall(if_none_match)}


def versions_of(if_match: str | None) -> list[Version] | None:
    """Return the versions that ``If-Match`` names; None where any will do.

    It names them by tags of runs, or by themselves, with quotes or without. What cannot be the current one,
    as a weak tag, is left out.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    tags = (
        [tag for weak, tag in _TAG.findall(if_match) if not weak] if '"' in if_match else [if_match.strip()]
    )
    return [version for tag in tags if (version := _version(tag)) is not None]


def _version(tag: str) -> Version | None:
    try:
        return Version.from_text(unquote(tag.partition(";")[0]))
    except InvalidArgumentError:
        return None
