"""Secrets in texts: an error message, a URL, a raw body, a command line."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import partial
from typing import Final

from ._secret_names import FORMED_NAMES, MAX_REMEMBERED_LENGTH, REDACTED, Look, word_set

MIN_LENGTH: Final = 6
"""Fewest characters of a text that names a secret and holds it: `pw=abc`."""

# Long repetitions are possessive, and matches begin where no other could have begun. No pattern backtracks,
# and each character is searched a bounded number of times. The text may be an attacker's.
_PEM: Final = re.compile(
    r"""
    -----BEGIN[ ](?P<pem>[A-Z0-9 ]{1,40})-----
    (?P<body>[^-]*+(?:-(?!----)[^-]*+)*+-----END[ ][A-Z0-9 ]{1,40}-----
        |(?:(?:\s|\\{1,4}[nr])++[A-Za-z0-9+/=]{16,}+)*+)
    """,
    re.VERBOSE,
)
_URL_PASSWORD: Final = re.compile(
    r"""
    ://[^\s/?#:@"'<>\[\]\\,;]{0,200}:
    (?P<password>[^\s/?#@"'<>\\]{0,300}+(?:@[^\s/?#@"'<>\\]{0,300}+(?=@))*+(?=@)
        |(?!\d{1,5}[/?#])[^\s@"'<>\\]{1,100}+(?=@))
    """,
    re.VERBOSE,
)
_HEADER: Final = re.compile(
    r"""(?<![A-Za-z0-9])(?P<scheme>[Bb](?:earer|EARER|asic|ASIC))(?:[ \t+]|%20){1,3}["']?"""
    r"""(?P<header>[\w.~+/=-]{4,}+)"""
)
_TOKEN: Final = re.compile(
    r"""
    (?<![A-Za-z0-9])(?=[\w./-]{12})(?:
    eyJ(?<![\w-]eyJ)[\w-]{8,}+\.(?:eyJ[\w-]*+(?:\.[\w-]*+)?|[\w-]*+(?:\.[\w-]*+){1,3})
    | A(?:KIA|SIA|BIA|CCA)(?=[A-Z]{0,16}\d)[A-Z0-9]{12,}+ | AIza[\w-]{24,}+ | ATATT3[\w=-]{20,}+
    | AGE-SECRET-KEY-1[A-Z0-9]{20,}+
    | gh[pousr]_[A-Za-z0-9]{16,}+ | github_pat_\w{16,}+ | gsk_[A-Za-z0-9]{20,}+ | glsa_\w{20,}+
    | gl(?:pat|ptt|dt|rt|cbt|soat|ft|oas|agent|imt|ffct)-[\w.-]{12,}+
    | xox[a-z](?:\.xox[a-z])?-[\w-]{8,}+ | xapp-\d-[\w-]{8,}+ | xai-[A-Za-z0-9]{20,}+
    | ya29\.[\w.-]{12,}+ | 1//0[\w-]{20,}+ | GOCSPX-[\w-]{16,}+
    | sk-(?:(?=[A-Za-z_-]{0,40}\d)[\w-]{16,}+|(?:proj-|ant-)?[A-Za-z0-9]{20,}+)
    | [sr]k_(?:live|test|prod)_[A-Za-z0-9]{8,}+ | whsec_[\w+/=]{16,}+
    | npm_[A-Za-z0-9]{20,}+ | pypi-(?=[a-z_-]{0,40}[A-Z\d])[\w-]{16,}+ | rubygems_[a-f0-9]{20,}+
    | SG\.[\w-]{8,}+\.[\w-]{8,}+ | hf_[A-Za-z0-9]{20,}+ | hv[sbr]\.[\w-]{20,}+
    | do[opr]_v1_[A-Fa-f0-9]{20,}+ | dapi[a-f0-9]{32} | dckr_(?:pat|oat)_[\w-]{16,}+
    | shp(?:at|ca|pa|ss|tka)_[A-Fa-f0-9]{20,}+ | sq0[a-z]{3}-[\w-]{16,}+ | sntry[su]_[\w+/=-]{20,}+
    | sbp_[a-f0-9]{20,}+ | pul-[a-f0-9]{20,}+ | PMAK-[\w-]{20,}+ | NRAK-[A-Z0-9]{20,}+
    | LTAI[A-Za-z0-9]{12,}+ | EAAC[A-Za-z0-9]{24,}+ | key-[a-f0-9]{32} | lin_api_[A-Za-z0-9]{20,}+
    | figd_[\w-]{20,}+ | r8_[A-Za-z0-9]{20,}+
    | hooks\.slack\.com/(?:services|workflows)/(?P<slack>[\w/-]{8,}+)
    | discord(?:app)?\.com/api/webhooks/\d{1,24}/(?P<discord>[\w-]{8,}+)
    | bot(?P<telegram>\d{6,12}:[\w-]{30,}+)
    )
    """,
    re.VERBOSE,
)
_PUBLIC_PEM: Final = re.compile(
    r"[A-Z0-9 ]{0,40}(?:PUBLIC KEY|CERTIFICATE|REQUEST|CRL|PARAMETERS|SIGNATURE|MESSAGE)"
)

MIN_TOKEN: Final = 12
"""Fewest characters of a token with a known prefix."""

_INVISIBLE: Final = "\u00ad\u200b-\u200f\u2060-\u2064\ufeff"
# A name and the sign that sets it, as in programs, JSON, YAML, URLs, headers and prose.
_ASSIGNED: Final = re.compile(
    rf"""
    (?<![\w.{_INVISIBLE}-])(?P<name>[\w.{_INVISIBLE}-]{{1,300}}+)
    (?P<close>\\{{0,4}}["'`]?\]?)
    (?P<sep>[ \t]{{0,4}}(?:={{1,3}}>?|:=|%3[Dd]|:(?!/?/)|[ \t](?:is|was)[ \t:])[ \t]{{0,4}}|[ \t](?=["']))
    """,
    re.VERBOSE,
)

# One of these is in every text that sets something. It is a quick test before the slow pattern.
_SETS: Final = re.compile(r"[=:]|%3|[ \t](?:['\"]|is[ \t:]|was[ \t:])")

_FLAG: Final = re.compile(r"(?<![\w-])-{1,2}(?P<name>[A-Za-z][\w-]{2,60}+)[ \t]{1,3}(?=[^\s-])")
_LOGIN: Final = re.compile(
    r"(?<![\w-])(?:-u|--(?:proxy-)?user)[ \t=]{1,3}[\"']?[^\s:\"'@/]{1,100}:(?=[^\s\"'])"
)
_ELEMENT: Final = re.compile(r"<(?:[\w-]{1,30}:)?(?P<name>[\w.-]{2,60}+)(?:\s[^<>]{0,100}+)?>(?=[^<>\s])")
_TUPLE: Final = re.compile(r"""[(\[][bu]?["'](?P<name>[\w .-]{2,60}+)["'],\s{0,3}(?=[bu]?["'])""")
# Names that are themselves values: ``('X-Api-Key', '...')``, ``{"name": "Cookie", "value": "..."}``.
_FIELDS: Final = re.compile(
    r"""
    (?:name|key|field|id|header|label)\\{0,4}["']?\s{0,3}[:=]\s{0,3}[bu]?\\{0,4}["']
    (?P<name>[\w .-]{2,60}+)\\{0,4}["']
    \s{0,3},?\s{0,40}\\{0,4}["']?(?:value|val|content)\\{0,4}["']?\s{0,3}[:=]\s{0,3}(?=[bu]?\\{0,4}["'])
    """,
    re.VERBOSE | re.IGNORECASE,
)

_URL: Final = re.compile(r"[a-z][a-z+.-]{0,30}://")
_PAIR_ENDS: Final = re.compile(r"[\"'][)\]]")
_OPENING: Final = re.compile(r"[bBrRuUfF]{0,2}(\\{0,4}[\"'`])")
_CONTENTS: Final = {
    "": re.compile(r"[^\s\"'`<>,;&|()\[\]{}\\]++"),
    "/": re.compile(r"[^<>]++"),
    **{quote: re.compile(rf"[^{quote}\\]*+(?:\\(?:.|\Z)[^{quote}\\]*+)*+", re.DOTALL) for quote in "\"'`"},
    "\\": re.compile(r"[^\"'`\\]*+"),
    "cookie": re.compile(r"[^\s;,\"'\\]++(?:;[ \t]?[^\s;,=\"'\\]++(?:=[^\s;,\"'\\]*+)?)*+"),
    "line": re.compile(r"[^\r\n\"'\\]++"),
}
_LIST: Final = re.compile(r"[\[(]\s{0,4}(?=[\"'])((?:\"[^\"\\\]]*+\"|'[^'\\\]]*+'|[\s,])++)")
_SCHEME: Final = re.compile(
    r"(?:Bearer|Basic|Token|Api-?Key|Key|Negotiate|NTLM|Hawk|Digest|AWS4-HMAC-SHA256|SharedKey\w*+)[ \t]++",
    re.IGNORECASE,
)
_LONG_SCHEME: Final = re.compile(r"(?:Digest|AWS4-HMAC-SHA256|Hawk)", re.IGNORECASE)

# What may stand in the place of a secret: nothing, a placeholder, a word about it, a call that makes it.
_EMPTY: Final = re.compile(
    r"""
    (?:none|null|nil|undefined|true|false|yes|no|on|off|n/?a|required|missing|invalid|incorrect|expired|wrong
        |unknown|empty|denied|optional|not|is|must|too|should|cannot|has|was|are|and|or|revoked|mismatch(?:ed)?
        |bad|failed|rejected|accepted|ok|valid|unset|hidden|masked|redacted|omitted|removed|present|found)
        (?![\w@$!%^*+/=~-]|\.\w)
    | \*{2,}+ | [xX]{3,}+(?![\w]) | \.{3} | \[redacted\] | \[[A-Z _]{3,20}\]
    | <[^<>\s]{1,60}> | \{[^{}\s]{0,60}\} | \{\{
    | \$[({][^\s(){}]{0,60}[)}]? | (?-i:\$[A-Z_]{3,60}(?![\w@!])) | %[sdr](?!\w) | %\(
    | [A-Za-z_][\w]{0,60}(?:\.[A-Za-z_]\w{0,60}){0,8}[(\[]
    | (?:self|cls|os|args|kwargs|config|settings|cfg|conf|request|req|ctx|context|env|environ|options|opts
        |params|app|client|this|creds|process|secrets|data|payload|user|account)\.[A-Za-z_]
    | (?:str|string|int|bool|bytes|float|Optional|Union|Any|SecretStr|SecretBytes|object|dict|list)
        (?=[ \t]*+(?:[,)=;|\[\n]|\Z))
    """,
    re.VERBOSE | re.IGNORECASE,
)

_TYPED: Final = re.compile(r"(?:str|bytes|SecretStr|string)(?:[ \t]*+\|[ \t]*+None)?[ \t]*+=[ \t]*+")
MIN_LONG: Final = 16
"""Texts of this length are no words."""

_FEW_DIGITS: Final = re.compile(r"\\{0,4}[\"']?\d{4,12}(?![\w=:])")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_]++(?:\.[A-Za-z_]++)*+")
_END: Final = re.compile(r"[ \t]*+(?:\\[nr]|[\r\n,;)\]}\"'&|<]|\Z)")
_NOT_OF_A_FLAG: Final = word_set(
    "to is and or for option flag must was with in from argument requires required not if when as on "
    "instead parameter can should cannot has the a an are be"
)
_SAID_BEFORE: Final = frozenset({"unexpected", "invalid", "illegal", "unknown", "next", "at", "last"})
_MAX_END: Final = 8
_ENDS_OF_NAMES: Final = frozenset({"key", "keys", "string", "id", "code", "phrase", "account"})
_SHORT_NUMBER: Final = re.compile(r"[\d.,_]{1,9}")
_WORD: Final = re.compile(r"[A-Za-z][a-z]*+|[A-Z]++")


def redacted_text(text: str, look_of: Callable[[str], Look]) -> str:
    """Return *text* with each secret in it replaced by `REDACTED`.

    The time that it takes is in proportion to the length of *text*, even if an attacker wrote it.
    """
    if len(text) < MIN_LENGTH:
        return text
    text = _without_known(text)
    if _SETS.search(text):
        text = _replaced(text, _ASSIGNED, partial(_assigned, look_of=look_of))
    if "curl" in text:
        text = _replaced(text, _LOGIN, _login)
    if "-" in text and " " in text:
        text = _replaced(text, _FLAG, partial(_flagged, look_of=look_of))
    if "</" in text:
        text = _replaced(text, _ELEMENT, partial(_named, look_of=look_of, kind="/"))
    if ("'" in text or '"' in text) and ("," in text or "value" in text):
        text = _replaced(text, _TUPLE, partial(_named, look_of=look_of, is_pair=True))
        text = _replaced(text, _FIELDS, partial(_named, look_of=look_of))
    return text


def _without_known(text: str) -> str:
    """Return *text* without the secrets that are known by their own form."""
    if "-----BEGIN " in text:
        text = _PEM.sub(_without_pem, text)
    if "://" in text and "@" in text:
        text = _URL_PASSWORD.sub(_without_password, text)
    if "earer" in text or "asic" in text or "EARER" in text or "ASIC" in text:
        text = _HEADER.sub(_without_header, text)
    if len(text) >= MIN_TOKEN:
        text = _TOKEN.sub(_without_token, text)
    return text


def _replaced(
    text: str, pattern: re.Pattern[str], find: Callable[[str, re.Match[str]], tuple[int, int] | None]
) -> str:
    """Return *text* with a secret in each span that *find* returns for a match of *pattern*."""
    parts: list[str] = []
    done = at = 0
    while match := pattern.search(text, at):
        at = max(match.end(), at + 1)
        span = find(text, match)
        if span is not None and span[0] < span[1] and text[span[0] : span[1]] != REDACTED:
            parts += (text[done : span[0]], REDACTED)
            done = at = span[1]
    return "".join((*parts, text[done:])) if parts else text


def _without_pem(match: re.Match[str]) -> str:
    is_public = _PUBLIC_PEM.fullmatch(match["pem"]) or not match["body"]
    return match[0] if is_public else REDACTED


def _without_password(match: re.Match[str]) -> str:
    return match[0] if _is_empty(match["password"]) else _without(match, "password")


def _without_header(match: re.Match[str]) -> str:
    return _without(match, "header") if _is_header(match, match["header"]) else match[0]


def _without_token(match: re.Match[str]) -> str:
    return _without(match, match.lastgroup) if match.lastgroup else REDACTED


def _without(match: re.Match[str], group: str) -> str:
    """Return *match* with its last part, *group*, redacted."""
    return match[0][: match.start(group) - match.start()] + REDACTED


def _is_header(match: re.Match[str], value: str) -> bool:
    """Return whether *value* is a bearer token or a basic credential, and no word of a sentence."""
    if match["scheme"][1] in "aA":
        if value.endswith("=") and len(value) % 4 == 0 and len(value) > MIN_LENGTH:
            return True
        with_padding = value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4)
        try:
            return b":" in base64.b64decode(with_padding, validate=True)
        except (binascii.Error, ValueError):
            return len(value) >= MIN_LONG and _is_odd(value)
    if match.string[match.end() : match.end() + 1] in {'"', "'"} and value.endswith("="):
        return False  # a server's challenge: Bearer realm="..."
    is_alone = match.end() == len(match.string) and match.start() == 0
    return (
        _is_odd(value)
        or len(value) >= MIN_LONG
        or (is_alone and not _EMPTY.match(value) and "auth" not in value)
    )


def _is_odd(value: str) -> bool:
    """Return whether *value* is no word: it mixes letters and digits, or has signs or inner capitals."""
    if value.isalpha():
        return not _WORD.fullmatch(value)
    letters = value.replace("-", "").replace("_", "").replace(".", "")
    return not letters.isalpha() and not _SHORT_NUMBER.fullmatch(value)


def _is_empty(value: str) -> bool:
    found = _EMPTY.match(value)
    return found is not None and found.end() == len(value)


def _assigned(text: str, match: re.Match[str], look_of: Callable[[str], Look]) -> tuple[int, int] | None:
    name, look = _assigned_name(text, match, look_of)
    if look is Look.HARMLESS:
        return None
    span, quote = _value(text, match.end(), name, look)
    if span is None:
        return None
    value, sep = text[span[0] : span[1]], match["sep"]
    if not _hides(look, value):
        return None
    if not sep.strip():  # password '...'
        return span if text[span[1] : span[1] + 1] == quote and _is_odd(value) and " " not in value else None
    if quote:
        return span
    is_spaced = sep != sep.strip() and "=" in sep
    if _is_variable(value, look_of) and (text[span[1] : span[1] + 1] in {",", ")"} or is_spaced):
        return None  # a line of a traceback that passes a variable on
    if (
        "=" in sep
        or "%" in sep
        or (_is_odd(value) and len(value) >= MIN_LENGTH - 1 and not _URL.match(value))
    ):
        return span
    # After a colon there may be a sentence about the secret, or the address where to get one.
    is_sentence = look is Look.COUNTS or _word_before(text, match.start()).lower() in _SAID_BEFORE
    is_last = _END.match(text, span[1]) is not None and not sep.strip().isalpha() and not _URL.match(value)
    return span if is_last and not is_sentence else None


def _assigned_name(text: str, match: re.Match[str], look_of: Callable[[str], Look]) -> tuple[str, Look]:
    """Return the name that is set, with the word before it if that makes it a secret, and how it looks."""
    name = match["name"].strip("-.")
    look = look_of(name)
    if look is not Look.HARMLESS or len(name) > _MAX_END:
        return name, look
    before = _word_before(text, match.start()).lower()
    is_signature = name.lower() == "sig" and text[match.start() - 1 : match.start()] in {"?", "&"}
    if is_signature or (before, name.lower()) == ("identified", "by"):
        return name, Look.SECRET
    if name.lower() in _ENDS_OF_NAMES:
        name = f"{before} {name}"
    return name, look_of(name)


def _is_variable(value: str, look_of: Callable[[str], Look]) -> bool:
    is_name = len(value) <= MAX_REMEMBERED_LENGTH and _IDENTIFIER.fullmatch(value) is not None
    return is_name and look_of(value) is not Look.HARMLESS


def _login(text: str, match: re.Match[str]) -> tuple[int, int] | None:
    found = None if _EMPTY.match(text, match.end()) else _CONTENTS[""].match(text, match.end())
    return None if found is None else found.span()


def _flagged(text: str, match: re.Match[str], look_of: Callable[[str], Look]) -> tuple[int, int] | None:
    span = _named(text, match, look_of)
    return None if span is None or text[span[0] : span[1]].lower() in _NOT_OF_A_FLAG else span


def _named(
    text: str, match: re.Match[str], look_of: Callable[[str], Look], *, kind: str = "", is_pair: bool = False
) -> tuple[int, int] | None:
    name = match["name"]
    look = look_of(name)
    span, _ = (None, "") if look is Look.HARMLESS else _value(text, match.end(), name, look, kind)
    if span is None or not _hides(look, text[span[0] : span[1]]):
        return None
    value = text[span[0] : span[1]]
    is_name = is_pair and not _is_odd(value) and len(value) < MIN_LONG
    return None if is_name or (is_pair and not _PAIR_ENDS.match(text, span[1])) else span


def _value(text: str, at: int, name: str, look: Look, kind: str = "") -> tuple[tuple[int, int] | None, str]:
    """Return the span of the secret in the value that begins at *at*, and what quotes it."""
    if look is Look.DIGITS and not _FEW_DIGITS.match(text, at):
        return None, ""
    if typed := _TYPED.match(text, at):
        at = typed.end()
    opening = _OPENING.match(text, at)
    quote = opening[1] if opening else ""
    at = opening.end() if opening else at
    if not quote and (listed := _LIST.match(text, at)):
        return listed.span(1), "["
    empty = _EMPTY.match(text, at)
    if empty is not None and (not quote or text.startswith(quote, empty.end())):
        return None, quote
    kind = kind or quote[:1]
    lower = name.lower()
    if "authorization" in lower and (scheme := _SCHEME.match(text, at)):
        at = scheme.end()
        if _EMPTY.match(text, at):
            return None, quote
        if not kind and _LONG_SCHEME.match(scheme[0]):
            kind = "line"
    elif not kind and "cookie" in lower:
        kind = "cookie"
    found = _CONTENTS[kind].match(text, at)
    if found is None:
        return None, quote
    return found.span(), quote


def _hides(look: Look, value: str) -> bool:
    if look is Look.DIGITS:
        return FORMED_NAMES["pin"].fullmatch(value) is not None
    return look is Look.SECRET or not _SHORT_NUMBER.fullmatch(value)


def _word_before(text: str, at: int) -> str:
    words = text[max(0, at - 24) : at].split()
    return words[-1] if words and text[at - 1 : at] == " " else ""
