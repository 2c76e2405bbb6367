from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from run_log.producer import Redaction

_SECRET = "hunter2"  # noqa: S105 - it is to be found
_SEPARATORS = st.sampled_from(["", "_", "-", " ", ".", "__"])


@st.composite
def _secret_keys(draw: st.DrawFn) -> str:
    words = draw(st.sampled_from([["api", "key"], ["pass", "word"], ["client", "secret"], ["set", "cookie"]]))
    cased = [draw(st.sampled_from([word, word.upper(), word.title()])) for word in words]
    return draw(_SEPARATORS).join(cased)


_harmless = st.sampled_from(["a", "name", "author", "n0"])
_leaves = st.none() | st.booleans() | st.integers() | st.sampled_from(["kept", ""])
_plain = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_harmless, inner, max_size=3) | st.tuples(inner)
    ),
    max_leaves=8,
)
_secret_values = (
    st.just(_SECRET)
    | st.lists(st.just(_SECRET), min_size=1)
    | st.tuples(st.tuples(st.just(_SECRET)))
    | st.frozensets(st.tuples(st.just(_SECRET)), min_size=1)
    | st.dictionaries(_harmless, st.just(_SECRET))
)
_payloads = st.dictionaries(
    _harmless,
    st.recursive(
        _plain
        | st.dictionaries(_secret_keys(), _secret_values, max_size=2)
        | st.tuples(_secret_keys(), st.just(_SECRET))
        | st.fixed_dictionaries({"name": _secret_keys(), "value": st.just(_SECRET)}),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(_harmless, inner, max_size=3) | st.tuples(inner)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


@given(_payloads)
def test_no_secret_survives(payload: dict[str, Any]) -> None:
    """No value under a key that looks like a secret survives, however deep it lies, however it is spelt."""
    Redaction().apply(payload)

    assert _SECRET not in repr(payload)


@given(st.dictionaries(_harmless, _plain, max_size=4))
def test_what_is_no_secret_is_untouched(payload: dict[str, Any]) -> None:
    """A payload without secrets stays as it is, in JSON."""
    before = json.dumps(payload)

    Redaction().apply(payload)

    assert before == json.dumps(payload)


@given(_payloads)
def test_once_is_enough(payload: dict[str, Any]) -> None:
    """A second time replaces nothing and changes nothing."""
    Redaction().apply(payload)
    before = copy.deepcopy(payload)

    Redaction().apply(payload)

    assert before == payload


_parts = st.sampled_from(
    [
        *("password", "token", "api_key", "Cookie", "pin", "name", "value", "kept", "4711", "is", "--token"),
        *"=: '\"\\,;&()[]{}<>/@\n",
        *("Bearer ", "Basic ", ": ", "://", "eyJ"),
        *("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"),
        *(_SECRET, "[redacted]"),
    ]
)


@given(st.lists(_parts, max_size=30).map("".join))
def test_any_text_can_be_looked_through(text: str) -> None:
    """Whatever a text is made of, it is looked through, and what is no secret stays in its order."""
    kept = iter(text)

    left = Redaction().text(text).replace("[redacted]", "")

    assert all(letter in kept for letter in left)


@given(_secret_keys().filter(str.isidentifier), st.sampled_from(["{}={}", "{}: {}", '"{}": "{}"', "--{} {}"]))
def test_no_secret_that_is_named_survives_in_a_text(name: str, form: str) -> None:
    """A secret that a text names is replaced, and the rest of the text stays."""
    before, after = form.format(name, _SECRET), form.format(name, "[redacted]")

    assert f"a {after}, b" == Redaction().text(f"a {before}, b")
