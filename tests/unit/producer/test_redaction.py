from __future__ import annotations

from typing import Any

import pytest

from run_log.core import ConfigurationError
from run_log.producer import SECRET_NAMES, Redaction

_GONE = "[redacted]"


@pytest.mark.parametrize(
    "key",
    [
        *sorted(SECRET_NAMES),
        "PASSWORD",
        "db_password",
        "API-Key",
        "apiKey",
        "x.api.key",
        "APIKEY",
        "clientsecret",
        "Set-Cookie",
        "proxy authorization",
        "AWS_SECRET_ACCESS_KEY",
        "refreshTokens",
        "password2",
        "credentials",
        "tokenizer_api_key",
        "tokenizer_secret",
        "tokenization_password",
        "token_issuer_secret",
        "tokenised_secret",
        "secretary_password",
        "\uff50\uff41ssword",
        "pássword",
        "APİKEY",
        "pass\u200bword",
        "pass\u3164word",
        "pass\u115fword",
        "x" * 300 + "_password",
    ],
)
def test_a_key_that_looks_like_a_secret(key: str) -> None:
    """What a key that looks like a secret holds is replaced, whatever its case and its separators."""
    payload = {key: "hunter2", "other": "kept"}

    replaced = Redaction().apply(payload)

    assert {key: _GONE, "other": "kept"} == payload
    assert replaced == 1


@pytest.mark.parametrize(
    "key",
    [
        "author",
        "passenger",
        "secretary",
        "tokenizer",
        "Tokenization",
        "tokenise",
        "x" * 300,
        "api",
        "key",
        "",
        "ключ",
    ],
)
def test_a_harmless_key(key: str) -> None:
    """A key that only resembles a secret keeps its value."""
    payload = {key: "kept"}

    assert Redaction().apply(payload) == 0
    assert {key: "kept"} == payload


@pytest.mark.parametrize("value", [1234, 0, True, "", ["a", 1], {"a": {"b": 1}}, ("a",), {"a"}, b"a", 1.5])
def test_the_whole_value_is_replaced(value: object) -> None:
    """Under a secret's key nothing is kept, whatever it is; only None, which hides nothing, stays."""
    payload = {"password": value, "secret": None}

    Redaction().apply(payload)

    assert {"password": _GONE, "secret": None} == payload


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
    payload = {"nested": {key: "hunter2", 5: "kept", None: "kept"}}

    Redaction().apply(payload)

    assert {"nested": {key: _GONE, 5: "kept", None: "kept"}} == payload


@pytest.mark.parametrize(
    "value",
    [(("abc",),), frozenset({("abc",)}), frozenset({frozenset({"abc"})}), (1, ({"a": ("abc",)},)), [{"abc"}]],
)
def test_tuples_and_sets_are_looked_into(value: object) -> None:
    """Texts under a key that names counts are found in tuples and sets, however they are nested."""
    payload = {"token": value}

    Redaction().apply(payload)

    assert "abc" not in repr(payload)
    assert _GONE in repr(payload)


def test_a_tuple_that_is_held_over_and_over() -> None:
    """A tuple held in many places becomes one list in all of them."""
    value: Any = ({"password": "hunter2"},)
    for _ in range(60):
        value = (value, value)
    payload = {"a": value}

    assert Redaction().apply(payload) == 1
    assert payload["a"][0] is payload["a"][1]


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
    payload = {"headers": [given]}

    replaced = Redaction().apply(payload)

    assert {"headers": [left]} == payload
    assert replaced == (_GONE in repr(left))
    assert Redaction().apply(payload) == 0


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


def test_a_second_time_changes_nothing() -> None:
    """What is redacted stays as it is."""
    payload = {"password": "hunter2", "tokens": ["a"]}
    Redaction().apply(payload)

    assert Redaction().apply(payload) == 0
    assert {"password": _GONE, "tokens": [_GONE]} == payload


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
    payload = {secret: "s", kept: "k"}

    Redaction.from_setting(setting).apply(payload)

    assert {secret: _GONE, kept: "k"} == payload


def test_no_names_at_all() -> None:
    """With all names taken away nothing is replaced."""
    payload = {"password": "hunter2", "": "kept"}

    assert Redaction.from_setting("-*").apply(payload) == 0
    assert {"password": "hunter2", "": "kept"} == payload


@pytest.mark.parametrize(
    ("setting", "told"), [("iban,,pin", "names no key"), ("--", "names no key"), ("-no-such", "apikey")]
)
def test_a_setting_that_cannot_be_used(setting: str, told: str) -> None:
    """An entry that names nothing, or takes away what is not there, is an error that says what to write."""
    with pytest.raises(ConfigurationError, match="RUN_LOG_REDACT_KEYS") as caught:
        Redaction.from_setting(setting)

    assert told in str(caught.value)
