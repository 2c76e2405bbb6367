"""Redaction: what looks like a secret does not leave the process."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise
from typing import Any, Final, cast

from run_log.core import ConfigurationError

from ._secret_names import (
    FORMED_NAMES,
    LONG_NUMBER,
    LONGER_NUMBER,
    REDACTED,
    SECRET_NAMES,
    Look,
    SecretNames,
    is_count,
    is_question,
    names_one_token,
    plain_name,
    word_set,
)
from ._secret_texts import redacted_text

_BASE64: Final = re.compile(r"(?:[A-Za-z0-9_-]{4}){1,49}(?:[A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?")

_NAME_KEYS: Final = word_set(
    "name key field id label header k n attribute param parameter variable property option fieldname "
    "field_name headername header_name keyname key_name"
)
_VALUE_KEYS: Final = word_set(
    "value values val content contents data v answer input fieldvalue field_value headervalue header_value "
    "stringvalue string_value"
)
_NAMES_KEYS: Final = word_set("keys names fields columns headers header labels ids")
_ROWS_KEYS: Final = word_set("values vals row rows data contents records")
_BESIDE_NAMES: Final = frozenset(
    spelt
    for key in _VALUE_KEYS | _ROWS_KEYS
    for spelt in (key, key.upper(), key.capitalize(), key.removesuffix("value") + "Value")
)
"""One of these is a key of every object that is a pair, or a table."""

_MAX_ROLE_KEYS: Final = 64
"""Entries of an object that is looked at as a pair, or as a table."""

_MAX_KEY_PARTS: Final = 100


class Redaction:
    """Replaces secrets in trigger data and results, at any depth, and in texts.

    A key looks like a secret if it contains one of the names, whatever its case, its separators and the
    alphabet that its letters are taken from: ``password``, ``db_password``, ``API-Key``, ``apiKey`` and
    ``clientsecret`` do; ``author``, ``secretary`` and ``tokenizer`` do not, nor does what only tells of one:
    ``password_policy``, ``token_url``. What stands under it is replaced whole. Under a key that looks like
    a secret by ``token`` alone, numbers stay unless they are long, since ``max_tokens: 1024`` is none: only
    texts are replaced, in lists and objects below it too.

    Pairs are seen as well, as headers often are given: a list of two texts whose first looks like a secret,
    an object that has one for ``name``, ``key``, ``field``, ``id``, ``label`` or ``header`` beside a value,
    lists of names beside lists of values, and the option of a command line before its argument.

    Within texts, what says that it is a secret is replaced, and the rest stays: ``Bearer ...``,
    ``password=...``, the password in a URL, a private key, a token with a prefix that is known.

    Args:
        names: Names of secrets.
        texts: Whether secrets within texts are looked for.
        formed: Names of `FORMED_NAMES` that count.
    """

    def __init__(
        self,
        names: Iterable[str] = SECRET_NAMES,
        *,
        texts: bool = True,
        formed: Iterable[str] = tuple(FORMED_NAMES),
    ) -> None:
        self._names = SecretNames(names, formed)
        self._in_texts = texts

    @classmethod
    def from_setting(cls, text: str | None, *, texts: bool = True) -> Redaction:
        """Return the redaction that ``RUN_LOG_REDACT_KEYS`` and ``RUN_LOG_REDACT_TEXT`` describe.

        Args:
            text: Names separated by commas, which are added to `SECRET_NAMES`; ``-name`` takes one away,
                ``-*`` all that were there before it. None changes nothing.
            texts: Whether secrets within texts are looked for.

        Raises:
            ConfigurationError: An entry has no letter and no digit, or takes away what is not there.
        """
        names, formed = set(SECRET_NAMES), set(FORMED_NAMES)
        for entry in (text or "").split(",") if text else ():
            name = plain_name(entry)
            if entry.strip() == "-*":
                names.clear()
                formed.clear()
            elif not name:
                raise ConfigurationError(
                    f"RUN_LOG_REDACT_KEYS={text!r}: {entry!r} names no key; "
                    "write names separated by commas, -name to take one away, -* to take away all"
                )
            elif not entry.strip().startswith("-"):
                names.add(name)
            elif name in names | formed:
                names.discard(name)
                formed.discard(name)
            else:
                raise ConfigurationError(
                    f"RUN_LOG_REDACT_KEYS={text!r}: {name!r} is not there to be taken away; "
                    f"the names are {', '.join(sorted(names | formed))}"
                )
        return cls(names, texts=texts, formed=formed)

    def text(self, text: str) -> str:
        """Return *text* with each secret in it replaced, and all else as it was."""
        return redacted_text(text, self._names.look) if self._in_texts else text

    def apply(self, payload: dict[str, Any]) -> int:
        """Replace every secret in *payload*, and return how many values were replaced.

        Never recurses; what is held in several places is looked at once. Tuples and sets become lists, as
        they do in JSON, and named tuples objects.

        Args:
            payload: Ours, of built-in types; changed in place.
        """
        replaced = 0
        # What is held under a key that names counts may be held elsewhere too, and is looked at again.
        seen: set[tuple[int, bool]] = set()
        changeable: _Changeable = {}
        ahead: list[tuple[_Container, bool]] = [(payload, False)]
        while ahead:
            container, texts = ahead.pop()
            if (id(container), texts) not in seen:
                seen.add((id(container), texts))
                if isinstance(container, list):
                    replaced += self._redact_list(container)
                elif not _BESIDE_NAMES.isdisjoint(container):
                    replaced += self._redact_object(container)
                    replaced += self._redact_table(container, changeable)
                replaced += self._redact(container, ahead, changeable, texts=texts)
        return replaced

    def _redact(
        self,
        container: _Container,
        ahead: list[tuple[_Container, bool]],
        changeable: _Changeable,
        *,
        texts: bool,
    ) -> int:
        """Replace what *container* itself holds, and put the containers in it *ahead*; return how many.

        Args:
            container: To be looked at.
            ahead: Takes what is to be looked at next.
            changeable: Takes what stands for the tuples and sets.
            texts: Whether every text in it is a secret.
        """
        replaced = 0
        keyed = isinstance(container, dict)
        entries = list(container.items() if isinstance(container, dict) else enumerate(container))
        target = cast("dict[Any, Any]", container)  # or a list, and its index
        for key, value in entries:
            look = self._look_of(key) if keyed else Look.HARMLESS
            if texts and look is Look.HARMLESS:
                look = Look.COUNTS
            if look is not Look.HARMLESS and _hides(look, _key_text(key), value):
                target[key] = REDACTED
                replaced += value != REDACTED
            elif isinstance(value, _CONTAINERS):
                inner = cast("Any", value)
                if issubclass(type(inner), _FIXED):
                    inner = target[key] = _as_changeable(inner, changeable)
                ahead.append((inner, look is Look.COUNTS))
            elif self._in_texts and isinstance(value, str | bytes):
                # One character a byte, so that what is no text stays what it is.
                text = value if isinstance(value, str) else value.decode("latin-1")
                new = redacted_text(text, self._names.look)
                if new is not text and new != text:
                    target[key] = new if isinstance(value, str) else new.encode("latin-1")
                    replaced += 1
        return replaced

    def _redact_object(self, container: dict[Any, Any]) -> int:
        """Replace the values that *container* holds beside the name of a secret; return how many."""
        keys = [(key, key.casefold()) for key in islice(container, _MAX_ROLE_KEYS) if isinstance(key, str)]
        named = [container[key] for key, role in keys if role in _NAME_KEYS]
        names = [name for name in named if isinstance(name, str | bytes) and len(name) <= MAX_NAME]
        replaced = 0
        for name in names:
            look = self._look_of_name(name)
            if look is Look.HARMLESS:
                continue
            for key, role in keys:
                value = container[key]
                if role in _VALUE_KEYS and value != REDACTED and _hides(look, _key_text(name), value):
                    container[key] = REDACTED
                    replaced += 1
        return replaced

    def _redact_table(self, container: dict[Any, Any], changeable: _Changeable) -> int:
        """Replace what stands in lists of values where the name of a secret stands in one of names."""
        keys = [(key, key.casefold()) for key in islice(container, _MAX_ROLE_KEYS) if isinstance(key, str)]
        columns = [container[key] for key, role in keys if role in _NAMES_KEYS and _is_list(container[key])]
        if not columns:
            return 0
        replaced = 0
        for key, role in keys:
            if role not in _ROWS_KEYS or not _is_list(container[key]):
                continue
            rows = container[key] = _as_changeable(container[key], changeable)
            for index, row in enumerate(rows):
                if _is_list(row):
                    rows[index] = _as_changeable(row, changeable)
            for names in columns:
                own: list[Any] = [rows, *filter(_is_list, rows)]
                for row in own:
                    replaced += self._redact_row(names, row) if row is not names else 0
        return replaced

    def _redact_row(self, names: Sequence[object], row: list[Any]) -> int:
        replaced = 0
        if len(names) == len(row):
            for index, name in enumerate(names):
                if not isinstance(name, str | bytes) or row[index] == REDACTED:
                    continue
                look = self._look_of_name(name)
                if look is not Look.HARMLESS and _hides(look, _key_text(name), row[index]):
                    row[index] = REDACTED
                    replaced += 1
        return replaced

    def _redact_list(self, container: list[Any]) -> int:
        """Replace the text that follows the name of a secret in a pair, or its option in a command line."""
        replaced = 0
        is_pair = len(container) == 2  # noqa: PLR2004
        for index, (name, value) in enumerate(pairwise(container)):
            is_option = isinstance(name, str) and name[:1] == "-" and "=" not in name
            if not (is_pair or is_option) or not isinstance(name, str | bytes) or not _is_text(value):
                continue
            if value == REDACTED or (is_option and value[:1] in {"-", b"-"}):
                continue
            look = self._look_of(name) if is_option else self._look_of_name(name)
            if look is not Look.HARMLESS and _hides(look, _key_text(name), value):
                container[index + 1] = REDACTED
                replaced += 1
        return replaced

    def _look_of(self, key: object) -> Look:
        return self._names.look(_key_text(key))

    def _look_of_name(self, name: str | bytes) -> Look:
        """Return how *name* looks, or what it is in base64: servers give headers as bytes."""
        look = self._look_of(name)
        if look is Look.HARMLESS and type(name) is str and len(name) % 4 == 0 and _BASE64.fullmatch(name):
            return self._look_of(base64.urlsafe_b64decode(name))
        return look


FEWEST_DIGITS: Final = 1_000
MOST_DIGITS: Final = 10**12

MAX_NAME: Final = 200
"""Most characters of the name in a pair."""

_Container = dict[Any, Any] | list[Any]
_Changeable = dict[int, tuple[object, Any]]
_FIXED: Final = (tuple, set, frozenset)
_CONTAINERS: Final = (dict, list, *_FIXED)


def _hides(look: Look, name: str, value: object) -> bool:
    """Return whether *value*, under a name that looks so, is a secret, whole."""
    if value is None:
        return False
    if look is Look.SECRET:
        return not (isinstance(value, bool) and is_question(name))
    if isinstance(value, bool):
        return False
    if look is Look.DIGITS:
        if isinstance(value, int):
            return FEWEST_DIGITS <= value <= MOST_DIGITS
        return isinstance(value, str) and FORMED_NAMES["pin"].fullmatch(value) is not None
    if isinstance(value, int):
        return value >= LONGER_NUMBER or (value >= LONG_NUMBER and names_one_token(name))
    return _is_text(value) and not (isinstance(value, str) and is_count(name, value))


def _as_changeable(fixed: Any, changeable: _Changeable) -> Any:
    """Return what stands for *fixed*, which cannot be changed in place: one wherever it is held."""
    if not issubclass(type(fixed), _FIXED):
        return fixed
    if id(fixed) not in changeable:
        names: Any = getattr(cast("object", type(fixed)), "_fields", None)
        is_named = isinstance(names, tuple) and len(cast("tuple[object, ...]", names)) == len(fixed) > 0
        own: Any = dict(zip(cast("tuple[str, ...]", names), fixed, strict=True)) if is_named else list(fixed)
        changeable[id(fixed)] = fixed, own  # with the original, so that its id stays its own
    return changeable[id(fixed)][1]


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _is_text(value: object) -> bool:
    return isinstance(value, str | bytes) and bool(value)


def _key_text(key: object) -> str:
    """Return the texts that *key* is made of, also those of tuples and sets within it."""
    if type(key) is str:
        return key
    ahead, parts = [key], list[str]()
    while ahead and len(parts) < _MAX_KEY_PARTS:
        part = ahead.pop()
        if isinstance(part, bytes):
            parts.append(part.decode(errors="replace"))
        elif isinstance(part, str):
            parts.append(part)
        elif isinstance(part, tuple | frozenset):
            ahead += reversed([*cast("Iterable[object]", part)])
    return "_".join(parts)
