# ruff: noqa: RUF001 - letters that look alike are what this is about
"""Names of secrets: which keys, fields, headers and variables hold one, in any spelling."""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, cast

REDACTED: Final = "[redacted]"
"""What stands where a secret was."""


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names that also occur in harmless words. They count only as whole words.
_WHOLE_WORDS: Final = word_set("auth cvc cvv dsn otp pem psk pw sas sid totp")

SECRET_NAMES: Final = _WHOLE_WORDS | word_set(
    "2facode accesskey accountkey aeskey apikey appkey applicationkey authkey authorization backupcode "
    "bearer clientassertion clientkey codeverifier connectionstring connstring connstr consumerkey cookie "
    "credential csrf decryptionkey deploykey encryptionkey functionkey gpgkey hmackey jwt licensekey "
    "masterkey mfacode onetimecode passcode passphrase passwd password pgpkey privatekey pwd recoverycode "
    "recoveryphrase rsakey samlassertion samlresponse secret seedphrase serverkey serviceaccountjson "
    "serviceaccountkey servicekey sessid sessionid sessionkey sharedkey signature signingkey sshkey "
    "storagekey subscriptionkey token verificationcode webhookkey writekey xsrf"
)
"""Names of secrets: lower-case letters and digits, without separators."""

FORMED_NAMES: Final = {"pin": re.compile(r"\d{4,12}")}
"""Names that count only as whole words, and only for values of this form."""

MAX_REMEMBERED_NAMES: Final = 4_096
"""Names whose look is remembered. Payloads repeat a few keys, but some use data as keys."""

MAX_REMEMBERED_LENGTH: Final = 200
"""Most characters of a name whose look is remembered."""

LONG_NUMBER: Final = 10**7
"""A number from here on is a token, and no count, under a name that ends in "token"."""

LONGER_NUMBER: Final = 10**15
"""A number from here on is a token under any name of tokens."""

# The name that stands for counts as often as for secrets: `max_tokens`, `token_usage`.
_COUNTS: Final = "token"

_COUNT_WORDS: Final = word_set(
    "max min total num number count limit prompt completion input output cached reasoning used "
    "remaining n avg average budget per"
)
# Last words of names that say something about a secret but do not hold it.
_ABOUT: Final = word_set(
    "age algorithm alg amount arn at attempts banner budget bucket changed classification consent "
    "count counts created date days dir directory disabled domain embedding embeddings enabled "
    "endpoint errors expiration expired expires expiry failures file filename format hours httponly ids "
    "in issued issuer issuers length len lifetime limit limits manager method methods minutes mode ms "
    "name names notice path paths policies policy provider providers required resets resource retries "
    "revoked rotated rotation rules samesite scope scopes second seconds secure service size status store "
    "strategy strength time timeout timestamp ttl type types updated uri url urls used validity vault "
    "version versions"
)

_AFTER_AUTH: Final = word_set(
    "code config cookie creds data hash header headers info password pass params pwd string user value"
)
_BEFORE_PASS: Final = word_set(
    "admin api auth backup basic bind broker cert database db email encryption ftp host http imap key "
    "keystore ldap login mail master mongo mongodb my mysql pg postgres postgresql proxy rabbitmq "
    "redis root server sftp smtp sql ssh sudo sys user vpn wifi zip"
)
_HARMLESS: Final = re.compile(
    r"secretar(?:y|ies|iat|ial)|tokeni[sz](?:ation|ing|er|ed|e)|tokenism"
    r"|(?:standard|pall|fore|cup|torch|flag|ring|stretcher)bearer|cookiecutter|cookiebot"
    r"|(?:function|method|call|type|email|class)signature|(?:ob|pos)sessions?(?=ids?$)"
)
_HARMLESS_WORD: Final = re.compile(
    r"key(?:board|word|note|stroke|frame|hole|pad|chain|space|ring|stone|value)s?|secret(?:ions?|ives?|ively|ly|ed|ing|ory|in)"
    r"|(?:password|secret|token|cookie|key)less|credential(?:ing|ed|ism)|(?:over|for)bear(?:er|ing)"
)
_QUESTION: Final = re.compile(
    r"(?i:is|are|has|had|have|was|were|needs?|requires?|uses?|with|without|allows?|enables?|disables?|shows?|hides?"
    r"|can|should|must|no|skip|verify|validate|checks?|sends?|accepts?|includes?|ignores?|supports?|forces?"
    r"|remember|saves?|wants?|ask|missing|valid|invalid)(?=[A-Z_\-. ])"
)

_WORDS: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_]+")
# Hangul letters that nobody sees.
_FILLERS: Final = "\u115f\u1160\u3164\uffa0"

_ALIKE: Final = {
    **dict(zip("авекмнорстухѕіјԁһԛԝӏгпѵғԍ", "abekmhopctyxsijdhqwlrnvfg", strict=True)),
    **dict(zip("АВЕКМНОРСТУХЅІЈԀҺԚԜӀѴ", "abekmhopctyxsijdhqwlv", strict=True)),
    **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹ", "abezhikmnoptyxc", strict=True)),
    **dict(zip("αβγεηικμνορςσδτυχωϲϳ", "abyenikuvopsodtuxwcj", strict=True)),
    **dict(zip("ıɑɡʟᴀʙᴄᴅᴇɢʜɪᴊᴋᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢøđħłŧƙɛɩʋ", "iaglabcdeghijkmnoprstuvwyzodhltkeiv", strict=True)),
    **dict(zip("օոսհցզաԱՕՍ", "onuhgqwuou", strict=True)),
    **dict(zip("ᎪᏴᏟᎠᎬᎻᎫᏦᏞᎷᎾᏢᎡᏚᎢᏙᎳᎩᏃ", "abcdehjklmoprstvwyz", strict=True)),
}
_LOOK_ALIKES: Final = str.maketrans(_ALIKE)
_LEET: Final = str.maketrans("013457@$!", "oieasta" + "si")
_MIN_LEET: Final = 5
_MAX_COUNT_TEXT: Final = 16


class Look(enum.Enum):
    """How a name looks."""

    HARMLESS = enum.auto()
    COUNTS = enum.auto()
    """Texts under it are secrets. Numbers are counts, unless they are long."""
    DIGITS = enum.auto()
    """Only a few digits under it are a secret."""
    SECRET = enum.auto()


class SecretNames:
    """Says how names look."""

    def __init__(self, names: Iterable[str], formed: Iterable[str] = ()) -> None:
        plain = {plain_name(name) for name in names} - {""}
        parts = sorted(plain - _WHOLE_WORDS)
        self._parts = re.compile("|".join(map(re.escape, parts))) if parts else None
        leet = [name for name in parts if len(name) >= _MIN_LEET]
        self._leet = re.compile("|".join(map(re.escape, leet))) if leet else None
        self._words = plain & _WHOLE_WORDS
        self._has_pass = "password" in plain
        self._formed = frozenset(formed) - plain
        self._whole = frozenset(name for name in plain if name.endswith(tuple(_ABOUT)))
        self._remembered = lru_cache(MAX_REMEMBERED_NAMES)(self._judge)

    def look(self, name: str) -> Look:
        return self._remembered(name) if len(name) <= MAX_REMEMBERED_LENGTH else self._judge(name)

    def _judge(self, name: str) -> Look:
        words = split(name)
        while len(words) > 1 and words[-1].isdigit():
            words.pop()  # db_password_2
        if not words:
            return Look.HARMLESS
        joined = "".join(word for word in words if not _HARMLESS_WORD.fullmatch(word))
        if words[-1] in _ABOUT and len(words) > 1:
            is_named = any(joined.endswith(whole) for whole in self._whole)
            return Look.SECRET if is_named else Look.HARMLESS
        found = set(self._parts.findall(_HARMLESS.sub("", joined))) if self._parts else set[str]()
        if found == {_COUNTS}:
            return Look.COUNTS
        if found or self._has_word(words) or self._is_leet(name):
            return Look.SECRET
        return self._look_of_words(words)

    def _has_word(self, words: list[str]) -> bool:
        for index, word in enumerate(words):
            plain = word if word in self._words else word.removesuffix("s")
            after = words[index + 1] if index + 1 < len(words) else None
            if plain not in self._words:
                continue
            if plain == "auth":
                if after is None or after in _AFTER_AUTH:
                    return True
            elif plain != "sid" or after is None:
                return True
        return False

    def _is_leet(self, name: str) -> bool:
        plain = name.translate(_LEET)
        return self._leet is not None and plain != name and bool(self._leet.search("".join(split(plain))))

    def _look_of_words(self, words: list[str]) -> Look:
        last, before = words[-1], words[-2] if len(words) > 1 else None
        if self._has_pass and last == "pass" and (before is None or before in _BEFORE_PASS):
            return Look.COUNTS
        if self._has_pass and last.endswith("pass") and last.removesuffix("pass") in _BEFORE_PASS:
            return Look.COUNTS
        if "pin" in self._formed and "pin" in {last, before} and last in {"pin", "code", "number"}:
            return Look.DIGITS
        return Look.HARMLESS


def is_question(name: str) -> bool:
    """Return whether *name* asks for yes or no: `has_password`."""
    return _QUESTION.match(name) is not None


def is_count(name: str, value: str) -> bool:
    """Return whether *value* under *name* is a number of tokens: `max_tokens: "1024"`."""
    parts = split(name)
    is_short = value.isdigit() or (parts[-1:] == ["tokens"] and len(value) < _MAX_COUNT_TEXT)
    return is_short and not _COUNT_WORDS.isdisjoint(parts)


def names_one_token(name: str) -> bool:
    """Return whether *name* means one token: `token` and `access_token`, but not `max_token`."""
    words = split(name)
    return bool(words) and words[-1] == _COUNTS and _COUNT_WORDS.isdisjoint(words)


def split(name: str) -> list[str]:
    """Return the words of *name* in lower case, with each look-alike letter as what it looks like."""
    if not name.isascii():
        name = unicodedata.normalize("NFKD", name)
        name = "".join(
            letter
            for letter in name
            if letter not in _FILLERS and unicodedata.category(letter) not in {"Mn", "Me", "Cf"}
        )
        name = name.translate(_LOOK_ALIKES)
    words = cast("list[str]", _WORDS.findall(name))
    return [
        word if word.islower() and word.isascii() else word.casefold().translate(_LOOK_ALIKES)
        for word in words
    ]


def plain_name(name: str) -> str:
    """Return *name* without what separates its words."""
    return "".join(split(name))
