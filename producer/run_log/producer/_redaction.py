"""Redaction: what looks like a secret does not leave the process."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, cast

from run_log.core import ConfigurationError

REDACTED: Final = "[redacted]"
"""What stands where a secret was."""

SECRET_NAMES: Final = frozenset(
    {
        "accesskey",
        "apikey",
        "authorization",
        "connectionstring",
        "cookie",
        "credential",
        "passphrase",
        "passwd",
        "password",
        "privatekey",
        "pwd",
        "secret",
        "sessionid",
        "signingkey",
        "token",
    }
)
"""Names of secrets: lower-case letters and digits, without separators."""

MAX_REMEMBERED_KEYS: Final = 4_096
"""Keys whose look is remembered: payloads repeat few keys, but their keys may be data."""

_COUNTS: Final = "token"
"""What names counts as often as secrets: `max_tokens`, `token_usage`."""

_HARMLESS: Final = re.compile(r"secretar(?:y|ies|iat)|tokeni[sz]\w*")
_SEPARATORS: Final = re.compile(r"[\W_]+")


class Redaction:
    """Replaces values whose keys look like secrets, in trigger data and results, at any depth.

    A key looks like a secret if it contains one of the names, whatever its case and its separators:
    ``password``, ``db_password``, ``API-Key``, ``apiKey``, ``x.api.key`` and ``clientsecret`` do; ``author``,
    ``secretary`` and ``tokenizer`` do not. What stands under it is replaced whole. Under a key that looks
    like a secret by ``token`` alone, numbers stay, since ``max_tokens: 1024`` is none: only texts are
    replaced, in lists and objects below it too.

    Secrets within texts (a raw body, a URL, an error message) are not found.

    Args:
        names: Names of secrets.
    """

    def __init__(self, names: Iterable[str] = SECRET_NAMES) -> None:
        plain = sorted({_normalised(name) for name in names} - {""})
        self._names = re.compile("|".join(map(re.escape, plain))) if plain else None
        self._look = lru_cache(MAX_REMEMBERED_KEYS)(self._judge)

    @classmethod
    def from_setting(cls, text: str | None) -> Redaction:
        """Return the redaction that ``RUN_LOG_REDACT_KEYS`` describes.

        Args:
            text: Names separated by commas, which are added to `SECRET_NAMES`; ``-name`` takes one away,
                ``-*`` all that were there before it. None changes nothing.

        Raises:
            ConfigurationError: An entry has no letter and no digit, or takes away what is not there.
        """
        names = set(SECRET_NAMES)
        for entry in (text or "").split(",") if text else ():
            name = _normalised(entry)
            if entry.strip() == "-*":
                names.clear()
            elif not name:
                raise ConfigurationError(
                    f"RUN_LOG_REDACT_KEYS={text!r}: {entry!r} names no key; "
                    "write names separated by commas, -name to take one away, -* to take away all"
                )
            elif not entry.strip().startswith("-"):
                names.add(name)
            elif name in names:
                names.remove(name)
            else:
                raise ConfigurationError(
                    f"RUN_LOG_REDACT_KEYS={text!r}: {name!r} is not there to be taken away; "
                    f"the names are {', '.join(sorted(names))}"
                )
        return cls(names)

    def apply(self, payload: dict[str, Any]) -> int:
        """Replace every secret in *payload*, and return how many values were replaced.

        Never recurses; what is held in several places is looked at once.

        Args:
            payload: Ours, of built-in types; changed in place.
        """
        if self._names is None:
            return 0
        replaced = 0
        # What is held under a key that names counts may be held elsewhere too, and is looked at again.
        seen: set[tuple[int, bool]] = set()
        ahead: list[tuple[_Container, bool]] = [(payload, False)]
        while ahead:
            container, texts = ahead.pop()
            if (id(container), texts) not in seen:
                seen.add((id(container), texts))
                replaced += self._redact(container, texts, ahead)
        return replaced

    def _redact(self, container: _Container, texts: bool, ahead: list[tuple[_Container, bool]]) -> int:  # noqa: FBT001
        """Replace what *container* itself holds, and put the containers in it *ahead*; return how many.

        Args:
            container: To be looked at.
            texts: Whether every text in it is a secret.
            ahead: Takes what is to be looked at next.
        """
        if isinstance(container, tuple):
            ahead += [(item, texts) for item in container if isinstance(item, _CONTAINERS)]
            return 0
        replaced = 0
        entries = list(container.items() if isinstance(container, dict) else enumerate(container))
        for key, value in entries:
            look = self._look(key) if type(key) is str else _Look.HARMLESS
            if (look is _Look.SECRET and value is not None) or (
                (texts or look is _Look.COUNTS) and _is_text(value)
            ):
                cast("dict[Any, Any]", container)[key] = REDACTED  # or a list, and its index
                replaced += value != REDACTED
            elif isinstance(value, _CONTAINERS):
                inner = cast("_Container", value)  # type: ignore[redundant-cast]  # not for pyright
                ahead.append((inner, texts or look is _Look.COUNTS))
        return replaced

    def _judge(self, key: str) -> _Look:
        names = cast("re.Pattern[str]", self._names)
        found = set(names.findall(_HARMLESS.sub("", _normalised(key))))
        if not found:
            return _Look.HARMLESS
        return _Look.COUNTS if found == {_COUNTS} else _Look.SECRET


class _Look(enum.Enum):
    HARMLESS = enum.auto()
    COUNTS = enum.auto()
    SECRET = enum.auto()


_Container = dict[Any, Any] | list[Any] | tuple[Any, ...]
_CONTAINERS: Final = (dict, list, tuple)


def _is_text(value: object) -> bool:
    # A tuple or a set cannot be changed in place, so that of texts is replaced whole.
    if isinstance(value, tuple | set | frozenset):
        return any(isinstance(item, str | bytes) for item in cast("Iterable[object]", value))
    return isinstance(value, str | bytes) and bool(value)


def _normalised(name: str) -> str:
    return _SEPARATORS.sub("", name).casefold()
