from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from run_log.core import ConfigurationError, PauseRequest, RunStatus, Settings
from run_log.producer import Redaction, RunEventEmitter, _secret_texts, record_run
from run_log.producer._secret_names import SECRET_NAMES, Look
from run_log.producer._secret_texts import redacted_text
from run_log.testing import a_run

from .secrets_corpus import HARMLESS, LONG, MISSED, NUMBERS, SECRETS, TRACEBACK, Login
from .transports import PATIENCE, ScriptedTransport

_GONE = "[redacted]"


def _redacted(payload: Any, redaction: Redaction | None = None) -> Any:
    """Redact a copy of *payload*, twice, and see that once is enough."""
    left = copy.deepcopy(payload)
    (redaction or Redaction()).apply(left)
    again = copy.deepcopy(left)
    (redaction or Redaction()).apply(again)
    assert left == again
    return left


_ALIKE = (
    *("PASSWORD", "db_password", "API-Key", "apiKey", "x.api.key", "APIKEY", "clientsecret", "Set-Cookie"),
    *("proxy authorization", "AWS_SECRET_ACCESS_KEY", "refreshTokens", "password2", "credentials"),
    *("tokenizer_api_key", "tokenizer_secret", "tokenization_password", "token_issuer_secret"),
    *("tokenised_secret", "secretary_password", "\uff50\uff41ssword", "pássword", "APİKEY"),
    *("pass\u200bword", "pass\u3164word", "pass\u115fword", "x" * 300 + "_password"),
)


def test_a_key_that_looks_like_a_secret() -> None:
    """What a key that looks like a secret holds is replaced, whatever its case and its separators."""
    keys = [*sorted(SECRET_NAMES), *_ALIKE]

    left = _redacted(dict.fromkeys(keys, "hunter2") | {"other": "kept"})

    assert dict.fromkeys(keys, _GONE) | {"other": "kept"} == left


def test_a_harmless_key() -> None:
    """A key that only resembles a secret keeps its value."""
    keys = ("author", "passenger", "secretary", "tokenizer", "Tokenization", "tokenise", "x" * 300, "api", "")
    payload = dict.fromkeys((*keys, "key", "ключ"), "kept")

    assert payload == _redacted(payload)


@pytest.mark.parametrize("value", [1234, 0, True, "", ["a", 1], {"a": {"b": 1}}, ("a",), {"a"}, b"a", 1.5])
def test_the_whole_value_is_replaced(value: object) -> None:
    """Under a secret's key nothing is kept, whatever it is; only None, which hides nothing, stays."""
    assert {"password": _GONE, "secret": None} == _redacted({"password": value, "secret": None})


def test_numbers_of_tokens_stay() -> None:
    """Counts of tokens are no secrets; texts under the same keys are."""
    payload = {
        "max_tokens": 1024,
        "token_usage": {"prompt": 12, "model": "m", "parts": [1, "s", ("t",), {"n": 2, "s": "u"}]},
        "tokens": ["a", "b", 3, {"c"}],
        "token": "t",
        "access_token_secret": 7,
    }

    Redaction().apply(payload)

    assert payload == {
        "max_tokens": 1024,
        "token_usage": {"prompt": 12, "model": _GONE, "parts": [1, _GONE, [_GONE], {"n": 2, "s": _GONE}]},
        "tokens": [_GONE, _GONE, 3, [_GONE]],
        "token": _GONE,
        "access_token_secret": _GONE,
    }


@pytest.mark.parametrize("key", [b"password", ("db", "password"), ("db", b"pass", 1, "word")])
def test_keys_that_are_no_text(key: object) -> None:
    """Bytes and tuples as keys are judged by the text they hold; other keys are harmless."""
    left = _redacted({"nested": {key: "hunter2", 5: "kept", None: "kept"}})

    assert {"nested": {key: _GONE, 5: "kept", None: "kept"}} == left


@pytest.mark.parametrize(
    "value",
    [(("abc",),), frozenset({("abc",)}), frozenset({frozenset({"abc"})}), (1, ({"a": ("abc",)},)), [{"abc"}]],
)
def test_tuples_and_sets_are_looked_into(value: object) -> None:
    """Texts under a key that names counts are found in tuples and sets, however they are nested."""
    left = repr(_redacted({"token": value}))

    assert "abc" not in left
    assert _GONE in left


def test_a_tuple_that_is_held_over_and_over() -> None:
    """A tuple held in many places becomes one list in all of them."""
    value: Any = ({"password": "hunter2"},)
    for _ in range(60):
        value = (value, value)
    payload = {"a": value}

    Redaction().apply(payload)

    assert payload["a"][0] is payload["a"][1]
    while "password" not in value[0]:
        value = payload["a"] = payload["a"][0]
    assert {"password": _GONE} == value[0]


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["Authorization", "Bearer x"], ["Authorization", _GONE]),
        ((b"Set-Cookie", b"a=b"), [b"Set-Cookie", _GONE]),
        (("X-Api-Token", "x"), ["X-Api-Token", _GONE]),
        (["password", 5], ["password", 5]),
        (["password", "a", "b"], ["password", "a", "b"]),
        (["accept", "password"], ["accept", "password"]),
        ({"name": "Authorization", "value": "x"}, {"name": "Authorization", "value": _GONE}),
        ({"key": "API_KEY", "name": "n", "value": "x"}, {"key": "API_KEY", "name": "n", "value": _GONE}),
        ({"key": "max_tokens", "value": 5}, {"key": "max_tokens", "value": 5}),
        ({"key": "n", "value": "x"}, {"key": "n", "value": "x"}),
    ],
)
def test_pairs(given: object, left: object) -> None:
    """A text that stands beside the name of a secret, as in lists of headers, is replaced."""
    assert {"headers": [left]} == _redacted({"headers": [given]})


def test_any_depth() -> None:
    """Secrets are found in lists, tuples and objects within one another, thousands of levels deep."""
    deep: Any = {"password": "hunter2"}
    innermost = deep
    for _ in range(1_000):
        deep = {"a": [(deep,)]}

    Redaction().apply(deep)

    assert {"password": _GONE} == innermost


def test_what_is_held_twice_and_what_holds_itself() -> None:
    """Shared values are redacted once for all, and a payload that contains itself comes to an end."""
    shared = {"password": "hunter2", "model": "m"}
    payload: dict[Any, Any] = {"plain": shared, "token": shared, 1: "one", None: {"secret": "s"}}
    payload["self"] = payload

    Redaction().apply(payload)

    assert {"password": _GONE, "model": _GONE} == shared
    assert (payload[1], payload[None]) == ("one", {"secret": _GONE})


@pytest.mark.parametrize(
    ("setting", "secret", "kept"),
    [
        (None, "password", "iban"),
        ("iban, Tax-ID", "tax_id", "name"),
        ("-cookie", "password", "cookie"),
        ("-*,iban", "iban", "password"),
        ("-*, password ,-password, pin", "pin", "password"),
    ],
)
def test_the_setting(setting: str | None, secret: str, kept: str) -> None:
    """The setting adds names to the built-in ones, takes one away, or all."""
    left = _redacted({secret: "s", kept: "k"}, Redaction.from_setting(setting))

    assert {secret: _GONE, kept: "k"} == left


def test_no_names_at_all() -> None:
    """With all names taken away nothing is replaced."""
    payload = {"password": "hunter2", "": "kept"}

    assert payload == _redacted(payload, Redaction.from_setting("-*"))


@pytest.mark.parametrize(
    ("setting", "told"), [("iban,,pin", "names no key"), ("--", "names no key"), ("-no-such", "apikey")]
)
def test_a_setting_that_cannot_be_used(setting: str, told: str) -> None:
    """An entry that names nothing, or takes away what is not there, is an error that says what to write."""
    with pytest.raises(ConfigurationError, match="RUN_LOG_REDACT_KEYS") as caught:
        Redaction.from_setting(setting)

    assert told in str(caught.value)


def _is_found(kind: str, value: Any, secret: str) -> bool:
    left = _redacted(value)
    if kind in {"texts", "tracebacks"}:
        # Only the secret itself is replaced, so that the rest can be read.
        return list(left.values()) == [text.replace(secret, _GONE) for text in value.values()]
    return secret not in repr(left)


@pytest.mark.parametrize("kind", SECRETS)
def test_the_share_of_secrets_that_is_found(kind: str) -> None:
    """At least 95 % of the secrets of each kind in the corpus are found; it names those that are not."""
    missed = [value for value, secret in SECRETS[kind] if not _is_found(kind, value, secret)]

    assert missed == [value for value, _ in SECRETS[kind] if value.get("text") in MISSED]
    assert len(missed) <= 0.05 * len(SECRETS[kind])


def test_what_only_looks_like_a_secret_stays() -> None:
    """Nothing of what resembles a secret and is none is replaced, in names and in texts."""
    assert HARMLESS == [_redacted(value) for value in HARMLESS]


def test_numbers_that_are_secrets() -> None:
    """Long numbers under the name of one token, and short ones under a PIN's, are replaced."""
    assert all(repr(_redacted(value)).count(_GONE) == 1 for value in NUMBERS)


def test_a_number_may_be_of_any_size() -> None:
    """Numbers that Python makes no text of are looked at as others are."""
    left = _redacted({"pin": 10**5_000, "token": 10**5_000, "max_tokens": -(10**5_000)})

    assert {"pin": 10**5_000, "token": _GONE, "max_tokens": -(10**5_000)} == left


def test_the_corpus_is_large() -> None:
    """The corpus has at least 150 places of either kind, and none twice."""
    places = [repr(value) for cases in SECRETS.values() for value, _ in cases]

    assert len(set(places)) == len(places) >= 150
    assert len({*map(repr, HARMLESS)}) == len(HARMLESS) >= 150


def test_a_named_tuple_keeps_its_fields() -> None:
    """A named tuple becomes an object, as it does in JSON, without its secret."""
    left = _redacted({"login": Login("mei", "hunter2"), "kept": (1, 2)})

    assert {"login": {"user": "mei", "password": _GONE}, "kept": [1, 2]} == left


_HOSTILE = {
    "the beginnings of tokens": "eyJ",
    "the beginnings of tokens in words": "eyJaeyJ-",
    "names that are set to names": "password=",
    "names that follow colons": "password:password",
    "a PIN that is none": "pin=",
    "keys without an end": "-----BEGIN RSA PRIVATE KEY-----",
    "lines of keys without an end": "-----BEGIN RSA PRIVATE KEY-----\\nMIIEpAIBAAKCAQEA7bq3",
    "users without a password": "://a:",
    "quotes": "password=\"'",
    "escaped quotes": 'password=\\"',
    "lists without an end": "token=['a',",
    "pairs": "('password', \"",
    "fields": "'name': 'password', ",
    "elements": "<password ",
    "options": "--password - ",
    "headers": "Authorization: Bearer a.",
    "cookies": "Cookie: a=b;",
    "dots": "a.b.c.",
    "white space": " \t",
    "backslashes": "\\",
    "words": "secret key is ",
    "letters": "a",
}


@pytest.mark.parametrize("part", _HOSTILE.values(), ids=_HOSTILE)
def test_a_text_may_be_made_to_take_long(part: str) -> None:
    """What is done for a text grows as it does, also where each part of it seems to begin a secret."""
    asked: list[int] = []
    for size in (10_000, 20_000, 40_000):
        names: list[str] = []
        text = part * (size // len(part))

        def look_of(name: str, names: list[str] = names) -> Look:
            names.append(name)
            return Look.HARMLESS if name == "a" else Look.SECRET

        redacted_text(text + "!", look_of)
        redacted_text(f"{text} password={LONG}", look_of)
        asked.append(sum(map(len, names)))

    assert asked[1] <= 3 * max(asked[0], 100)
    assert asked[2] <= 3 * max(asked[1], 100)


_MOST_GIVEN_BACK = 200


def _repeats(pattern: Any) -> Iterator[tuple[str, int]]:
    """Yield how each repetition in a parsed *pattern* is done, and how often at most."""
    for operation, argument in pattern:
        if str(operation) in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
            yield str(operation), int(argument[1])
        for inner in _as_list(argument):
            for alternative in _as_list(inner):
                yield from _repeats(alternative) if hasattr(alternative, "data") else ()


def _as_list(value: Any) -> list[Any]:
    return [*value] if type(value) in {tuple, list} else [value]


def _patterns() -> list[re.Pattern[str]]:
    contents: dict[str, re.Pattern[str]] = vars(_secret_texts)["_CONTENTS"]
    held = [*vars(_secret_texts).values(), *contents.values()]
    return [value for value in held if isinstance(value, re.Pattern)]


def test_no_pattern_goes_back_far() -> None:
    """What a pattern may repeat without an end it gives nothing back of, so that it is read once."""
    parse: Any = importlib.import_module("re._parser").parse
    found = {
        (pattern.pattern, repeat)
        for pattern in _patterns()
        for repeat in _repeats(parse(pattern.pattern, pattern.flags))
        if repeat[0] != "POSSESSIVE_REPEAT" and repeat[1] > _MOST_GIVEN_BACK
    }

    assert len(_patterns()) > 20
    assert not found


def test_errors_and_reasons_are_looked_through(
    transport: ScriptedTransport, emitter: RunEventEmitter
) -> None:
    """Secrets in a run's error and in what is said of a pause do not leave the process."""
    with record_run("w", emitter=emitter) as run:
        run.pause(f"use Bearer {LONG}?", assignee="mei@example.com")
        run.resume(answered_by="mei", comment=f"password={LONG}")
        run.fail(TRACEBACK.format(f"token={LONG}", "raise", "end"))
    emitter.close(PATIENCE)

    end = transport.events[-1].run
    assert end.pause is not None
    assert (f"use Bearer {_GONE}?", f"password={_GONE}") == (end.pause.reason, end.pause.comment)
    assert TRACEBACK.format(f"token={_GONE}", "raise", "end") == end.error
    assert ("mei@example.com", "mei") == (end.pause.assignee, end.pause.answered_by)


@pytest.mark.parametrize("is_on", [True, False])
def test_texts_can_be_left_alone(is_on: bool) -> None:  # noqa: FBT001 - a test's parameter
    """RUN_LOG_REDACT_TEXT=false leaves texts as they are; keys are looked at all the same."""
    settings = Settings.from_env({"RUN_LOG_REDACT_TEXT": str(is_on).lower()})
    transport = ScriptedTransport()
    emitter = RunEventEmitter.from_settings(settings, transport)

    with record_run("w", trigger_data={"text": f"password={LONG}", "password": LONG}, emitter=emitter) as run:
        run.fail(f"password={LONG}")
    emitter.close(PATIENCE)

    text = f"password={_GONE if is_on else LONG}"
    end = transport.events[-1].run
    assert ({"text": text, "password": _GONE}, text) == (end.trigger_data, end.error)


@pytest.mark.parametrize(
    ("setting", "left"), [(None, (_GONE, "a")), ("-pin", ("4711", "a")), ("pin", (_GONE, _GONE))]
)
def test_a_few_digits_by_the_setting(setting: str | None, left: tuple[str, str]) -> None:
    """The setting takes the PIN away, and adds it for whatever stands under it."""
    pin, other = left

    assert {"pin": pin, "shipping_pin": other} == _redacted(
        {"pin": "4711", "shipping_pin": "a"}, Redaction.from_setting(setting)
    )


def test_the_values_of_an_answer_are_looked_through(
    transport: ScriptedTransport, emitter: RunEventEmitter
) -> None:
    """Secrets among the values of an answer do not leave the process; the form that asks for them stays."""
    form = {"type": "object", "properties": {"password": {"type": "string"}}}
    values: dict[str, Any] = {"password": "hunter2", "notes": [f"use Bearer {LONG}"]}
    run = a_run(status=RunStatus.RUNNING, pause=PauseRequest(form=form, values=values))

    emitter.emit(run)
    assert run.pause is not None
    assert run.pause.values is not None
    run.pause.values["notes"].append("later")
    emitter.close(PATIENCE)

    sent = transport.events[-1].run.pause
    assert sent is not None
    assert (form, {"password": _GONE, "notes": [f"use Bearer {_GONE}"]}) == (sent.form, sent.values)
    assert "hunter2" == run.pause.values["password"]
