"""Redaction: what looks like a secret does not leave the process."""

from __future__ import annotations

import base64
import enum
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, cast

from run_log.core import ConfigurationError

REDACTED: Final = "[redacted]"
"""What stands where a secret was."""

SECRET_NAMES: Final = frozenset(
    {
        "accesskey",
        "accountkey",
        "apikey",
        "authorization",
        "bearer",
        "connectionstring",
        "cookie",
        "credential",
        "encryptionkey",
        "jwt",
        "passcode",
        "passphrase",
        "passwd",
        "password",
        "privatekey",
        "pwd",
        "secret",
        "sessionid",
        "signingkey",
        "subscriptionkey",
        "token",
    }
)
"""Names of secrets: lower-case letters and digits, without separators."""

MAX_REMEMBERED_KEYS: Final = 4_096
"""Keys whose look is remembered: payloads repeat few keys, but their keys may be data."""

MAX_REMEMBERED_LENGTH: Final = 200
"""Most characters of a key whose look is remembered."""

_COUNTS: Final = "token"
"""What names counts as often as secrets: `max_tokens`, `token_usage`."""

_HARMLESS: Final = re.compile(r"secretar(?:y|ies|iat)|tokeni[sz](?:ation|ing|er|ed|e)")

_BASE64: Final = re.compile(r"(?:[A-Za-z0-9_-]{4}){1,49}(?:[A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?")

# Hangul fillers are letters that nobody sees.
_SEPARATORS: Final = re.compile(r"[\W_\u115f\u1160\u3164\uffa0]+")


class Redaction:
    """Replaces values whose keys look like secrets, in trigger data and results, at any depth.

    A key looks like a secret if it contains one of the names, whatever its case and its separators:
    ``password``, ``db_password``, ``API-Key``, ``apiKey``, ``x.api.key`` and ``clientsecret`` do; ``author``,
    ``secretary`` and ``tokenizer`` do not. What stands under it is replaced whole. Under a key that looks
    like a secret by ``token`` alone, numbers stay, since ``max_tokens: 1024`` is none: only texts are
    replaced, in lists and objects below it too.

    Pairs are seen as well, as headers often are given: a list of two texts whose first looks like a secret,
    and an object that has one for ``name`` or ``key``, and a text for ``value``. Secrets within texts (a raw
    body, a URL, an error message, the repr of an object) are not found.

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

        Never recurses; what is held in several places is looked at once. Tuples and sets become lists, as
        they do in JSON.

        Args:
            payload: Ours, of built-in types; changed in place.
        """
        if self._names is None:
            return 0
        replaced = 0
        # What is held under a key that names counts may be held elsewhere too, and is looked at again.
        seen: set[tuple[int, bool]] = set()
        lists: _Lists = {}
        ahead: list[tuple[_Container, bool]] = [(payload, False)]
        while ahead:
            container, texts = ahead.pop()
            if (id(container), texts) not in seen:
                seen.add((id(container), texts))
                replaced += self._redact_pair(container)
                replaced += self._redact(container, ahead, lists, texts=texts)
        return replaced

    def _redact(
        self,
        container: _Container,
        ahead: list[tuple[_Container, bool]],
        lists: _Lists,
        *,
        texts: bool,
    ) -> int:
        """Replace what *container* itself holds, and put the containers in it *ahead*; return how many.

        Args:
            container: To be looked at.
            ahead: Takes what is to be looked at next.
            lists: Takes the tuples and sets that became lists.
            texts: Whether every text in it is a secret.
        """
        replaced = 0
        keyed = isinstance(container, dict)
        entries = list(container.items() if isinstance(container, dict) else enumerate(container))
        target = cast("dict[Any, Any]", container)  # or a list, and its index
        for key, value in entries:
            look = self._look_of(key) if keyed else _Look.HARMLESS
            if (look is _Look.SECRET and value is not None) or (
                (texts or look is _Look.COUNTS) and _is_text(value)
            ):
                target[key] = REDACTED
                replaced += value != REDACTED
            elif isinstance(value, _CONTAINERS):
                inner = cast("Any", value)
                if issubclass(type(inner), _FIXED):
                    inner = target[key] = _as_list(inner, lists)
                ahead.append((inner, texts or look is _Look.COUNTS))
        return replaced

    def _redact_pair(self, container: _Container) -> int:
        """Replace the text that *container* holds for the name of a secret, if it does; return how many."""
        place: Any = "value" if isinstance(container, dict) else 1
        if isinstance(container, dict):
            value = container.get(place)
        else:
            value = container[1] if len(container) == 2 else None  # noqa: PLR2004 - a pair
        if not _is_text(value) or value == REDACTED:
            return 0
        names = (
            [container.get("name"), container.get("key")] if isinstance(container, dict) else container[:1]
        )
        if all(self._look_of_name(name) is _Look.HARMLESS for name in names if isinstance(name, str | bytes)):
            return 0
        container[place] = REDACTED
        return 1

    def _look_of(self, key: object) -> _Look:
        if type(key) is str:
            return self._look(key) if len(key) <= MAX_REMEMBERED_LENGTH else self._judge(key)
        if issubclass(type(key), str | bytes | tuple):
            return self._judge(_key_text(key))
        return _Look.HARMLESS

    def _look_of_name(self, name: str | bytes) -> _Look:
        """Return how *name* looks, or what it is in base64: servers give headers as bytes."""
        look = self._look_of(name)
        if look is _Look.HARMLESS and type(name) is str and len(name) % 4 == 0 and _BASE64.fullmatch(name):
            return self._look_of(base64.urlsafe_b64decode(name))
        return look

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


_Container = dict[Any, Any] | list[Any]
_Lists = dict[int, tuple[object, list[Any]]]
_FIXED: Final = (tuple, set, frozenset)
_CONTAINERS: Final = (dict, list, *_FIXED)


def _as_list(fixed: Iterable[object], lists: _Lists) -> list[Any]:
    """Return the list that stands for *fixed*, which cannot be changed in place: one wherever it is held."""
    if id(fixed) not in lists:
        # With the original, so that its id stays its own.
        lists[id(fixed)] = fixed, list(fixed)
    return lists[id(fixed)][1]


def _is_text(value: object) -> bool:
    return isinstance(value, str | bytes) and bool(value)


def _key_text(key: object) -> str:
    parts = cast("tuple[object, ...]", key) if isinstance(key, tuple) else (key,)
    return "".join(
        part.decode(errors="replace") if isinstance(part, bytes) else part
        for part in parts
        if isinstance(part, str | bytes)
    )


def _normalised(name: str) -> str:
    return _SEPARATORS.sub("", unicodedata.normalize("NFKD", name).casefold())
