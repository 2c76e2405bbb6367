"""Redaction: secrets are replaced before they leave the process."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, Final, cast

from run_log.core import ConfigurationError, WorkflowRun

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
# Every object that is a pair, or a table, has one of these keys.
_BESIDE_NAMES: Final = frozenset(
    spelt
    for key in _VALUE_KEYS | _ROWS_KEYS
    for spelt in (key, key.upper(), key.capitalize(), key.removesuffix("value") + "Value")
)

# Most entries of an object that are looked at as a pair, or as a table.
_MAX_ROLE_KEYS: Final = 64

_MAX_KEY_PARTS: Final = 100


class Redaction:
    """Replaces secrets in trigger data and results, at any depth, and in texts.

    A key looks like a secret if it contains one of the names, in any case, with any separators, and with
    letters of any alphabet that look alike. So ``password``, ``db_password``, ``API-Key``, ``apiKey`` and
    ``clientsecret`` do. ``author``, ``secretary`` and ``tokenizer`` do not. Neither do keys that only say
    something about a secret: ``password_policy``, ``token_url``. The value under such a key is replaced
    whole. If only ``token`` makes the key a secret, texts are replaced, in lists and objects below it too,
    and numbers stay unless they are long: ``max_tokens: 1024`` is no secret.

    Pairs are found as well, since headers often come so: a list of two texts whose first looks like a secret;
    an object that has one under ``name``, ``key``, ``field``, ``id``, ``label`` or ``header`` beside a value;
    lists of names beside lists of values; and the option of a command line before its argument.

    In texts, only the secret is replaced: ``Bearer ...``, ``password=...``, the password in a URL, a private
    key, a token with a known prefix.

    Args:
        names: Names of secrets.
        texts: Whether to look for secrets in texts.
        formed: The names of `FORMED_NAMES` that count.
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
            text: Names separated by commas, which are added to `SECRET_NAMES`. ``-name`` takes one away, and
                ``-*`` all that stand before it. None changes nothing.
            texts: Whether to look for secrets in texts.

        Raises:
            ConfigurationError: An entry has no letter and no digit, or takes away a name that is not there.
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
        """Return *text* with each secret in it replaced."""
        return redacted_text(text, self._names.look) if self._in_texts else text

    def apply(self, payload: dict[str, Any]) -> None:
        """Replace every secret in *payload*.

        Tuples and sets become lists, as they do in JSON, and named tuples become objects. It does not
        recurse, so that depth is no limit, and looks once at what is held in several places.

        Args:
            payload: Changed in place. It holds built-in types only.
        """
        # With whether all texts in it are secrets: what is held under two keys may be looked at twice.
        seen: set[tuple[int, bool]] = set()
        changeable: _Changeable = {}
        ahead: list[tuple[_Container, bool]] = [(payload, False)]
        while ahead:
            container, texts = ahead.pop()
            if (id(container), texts) not in seen:
                seen.add((id(container), texts))
                if isinstance(container, list):
                    self._redact_list(container)
                elif not _BESIDE_NAMES.isdisjoint(container):
                    self._redact_object(container)
                    self._redact_table(container, changeable)
                ahead += self._redact(container, changeable, texts=texts)

    def apply_to_run(self, run: WorkflowRun) -> None:
        """Replace every secret in the payloads, labels and texts of *run*, which nobody else holds."""
        self.apply(run.trigger_data)
        self.apply(run.result)
        self.apply(run.labels)
        # Each assignment validates the whole run.
        if run.error and (error := self.text(run.error)) != run.error:
            run.error = error
        if run.pause is None:
            return
        if run.pause.values:
            self.apply(run.pause.values)
        for name in ("reason", "comment"):
            said: str | None = getattr(run.pause, name)
            if said and (text := self.text(said)) != said:
                setattr(run.pause, name, text)

    def _redact(
        self, container: _Container, changeable: _Changeable, *, texts: bool
    ) -> Iterator[tuple[_Container, bool]]:
        """Replace the secrets that *container* itself holds, and yield what is to be looked at next."""
        keyed = isinstance(container, dict)
        entries = list(container.items() if isinstance(container, dict) else enumerate(container))
        target = cast("dict[Any, Any]", container)  # or a list, and its index
        for key, value in entries:
            look = self._look_of(key) if keyed else Look.HARMLESS
            if texts and look is Look.HARMLESS:
                look = Look.COUNTS
            if _hides(look, key, value):
                target[key] = REDACTED
            elif isinstance(value, _CONTAINERS):
                inner = target[key] = _as_changeable(value, changeable)
                yield inner, look is Look.COUNTS
            elif self._in_texts and isinstance(value, str):
                target[key] = redacted_text(value, self._names.look)
            elif self._in_texts and isinstance(value, bytes):
                # One character a byte, so that bytes that are no text come back unchanged.
                text = redacted_text(value.decode("latin-1"), self._names.look)
                target[key] = text.encode("latin-1")

    def _redact_object(self, container: dict[Any, Any]) -> None:
        """Replace the values that *container* holds beside the name of a secret."""
        keys = _roles(container)
        named = [container[key] for key, role in keys if role in _NAME_KEYS]
        for name in named:
            if isinstance(name, str | bytes) and len(name) <= MAX_NAME:
                look = self._look_of_name(name)
                for key, role in keys:
                    if role in _VALUE_KEYS and _hides(look, name, container[key]):
                        container[key] = REDACTED

    def _redact_table(self, container: dict[Any, Any], changeable: _Changeable) -> None:
        """Replace the values that stand in rows under the name of a secret."""
        keys = _roles(container)
        columns = [container[key] for key, role in keys if role in _NAMES_KEYS and _is_list(container[key])]
        if not columns:
            return
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
                    if row is not names and len(row) == len(names):
                        self._redact_row(names, row)

    def _redact_row(self, names: Sequence[object], row: list[Any]) -> None:
        for index, name in enumerate(names):
            if isinstance(name, str | bytes) and _hides(self._look_of_name(name), name, row[index]):
                row[index] = REDACTED

    def _redact_list(self, container: list[Any]) -> None:
        """Replace the text after the name of a secret in a pair, or after its option."""
        is_pair = len(container) == 2  # noqa: PLR2004
        for index, (name, value) in enumerate(pairwise(container)):
            is_option = isinstance(name, str) and name[:1] == "-" and "=" not in name
            if not (is_pair or is_option) or not isinstance(name, str | bytes) or not _is_text(value):
                continue
            if is_option and value[:1] in {"-", b"-"}:
                continue
            look = self._look_of(name) if is_option else self._look_of_name(name)
            if _hides(look, name, value):
                container[index + 1] = REDACTED

    def _look_of(self, key: object) -> Look:
        return self._names.look(_key_text(key))

    def _look_of_name(self, name: str | bytes) -> Look:
        """Return how *name* looks, plain or in base64: servers give headers as bytes."""
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


def _hides(look: Look, key: object, value: object) -> bool:
    """Return whether *value* is a secret as a whole, under a *key* that looks so."""
    if value is None or look is Look.HARMLESS:
        return False
    if look is Look.SECRET:
        return not (isinstance(value, bool) and is_question(_key_text(key)))
    if isinstance(value, bool):
        return False
    if look is Look.DIGITS:
        if isinstance(value, int):
            return FEWEST_DIGITS <= value <= MOST_DIGITS
        return isinstance(value, str) and FORMED_NAMES["pin"].fullmatch(value) is not None
    if isinstance(value, int):
        return value >= LONGER_NUMBER or (value >= LONG_NUMBER and names_one_token(_key_text(key)))
    return _is_text(value) and not (isinstance(value, str) and is_count(_key_text(key), value))


def _as_changeable(fixed: Any, changeable: _Changeable) -> Any:
    """Return the list or object that replaces *fixed*, the same one wherever *fixed* is held."""
    if not issubclass(type(fixed), _FIXED):
        return fixed
    if id(fixed) not in changeable:
        names: Any = getattr(cast("object", type(fixed)), "_fields", None)
        is_named = isinstance(names, tuple) and len(cast("tuple[object, ...]", names)) == len(fixed) > 0
        own: Any = dict(zip(cast("tuple[str, ...]", names), fixed, strict=True)) if is_named else list(fixed)
        changeable[id(fixed)] = fixed, own  # with the original: as long as it lives, its id is not reused
    return changeable[id(fixed)][1]


def _roles(container: dict[Any, Any]) -> list[tuple[str, str]]:
    """Return the keys of *container* with what each may say: `Name` is a name."""
    return [(key, key.casefold()) for key in islice(container, _MAX_ROLE_KEYS) if isinstance(key, str)]


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _is_text(value: object) -> bool:
    return isinstance(value, str | bytes) and bool(value)


def _key_text(key: object) -> str:
    """Return the texts in *key* as one, also those in tuples and sets."""
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
