from __future__ import annotations

import copy
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from run_log.core.nearest import CUT_MARKER
from run_log.core.payload import decode_json, detached, encode_json, fit_payloads, fit_text

from .core_strategies import anything, examples, json_values, payloads

unreadable = st.recursive(
    st.none()
    | st.floats()
    | st.text(anything, max_size=4)
    | st.binary(max_size=4)
    | st.complex_numbers()
    | st.decimals()
    | st.fractions()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.ip_addresses()
    | st.sets(st.integers(), max_size=3)
    | st.builds(object),
    lambda values: (
        st.lists(values, max_size=3)
        | st.tuples(values, values)
        | st.dictionaries(
            st.none() | st.booleans() | st.floats() | st.dates() | st.tuples(st.integers()),
            values,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@examples(150)
@given(json_values)
def test_json_values_come_back_equal_and_of_the_same_types(value: Any) -> None:
    """Any JSON value comes back as it was: 1, 1.0 and True stay three values, keys keep their order."""
    decoded = decode_json(encode_json(value))

    assert repr(value) == repr(decoded)


@examples(150)
@given(unreadable)
def test_what_json_cannot_hold_still_becomes_json(value: Any) -> None:
    """Any value becomes strict ASCII JSON text, and encoding what comes back gives the same text."""
    text = encode_json(value)

    assert text.isascii()
    assert text == encode_json(decode_json(text))


@examples(100)
@given(payloads)
def test_a_detached_copy_is_equal_and_shares_nothing(payload: dict[str, Any]) -> None:
    """A detached payload equals its original, and stays as it is when the original's inside changes."""
    original = copy.deepcopy(payload)
    (detachment,), cut = detached(payload)
    for value in payload.values():
        if isinstance(value, list | dict):
            value.clear()  # pyright: ignore[reportUnknownMemberType]

    assert cut == 0
    assert original == detachment


@examples(100)
@given(payloads, payloads, st.integers(min_value=1_000, max_value=3_000))
def test_fitted_payloads_reach_the_limit_and_keep_their_outer_keys(
    first: dict[str, Any], second: dict[str, Any], limit: int
) -> None:
    """Cut payloads fit, keep every outer key and leave their originals alone; the count tells the cuts."""
    grown = {**first, "large": "x" * 5_000}
    originals = copy.deepcopy((grown, second))
    fitted, cut = fit_payloads((grown, second), limit)
    changed = sum(
        fitted[index].get(key) != value for index in (0, 1) for key, value in originals[index].items()
    )

    assert originals == (grown, second)
    assert sum(len(encode_json(payload)) for payload in fitted) <= limit
    assert [list(payload) for payload in originals] == [list(payload) for payload in fitted]
    assert changed == cut


@examples(100)
@given(payloads, payloads)
def test_payloads_that_fit_are_returned_as_they_are(first: dict[str, Any], second: dict[str, Any]) -> None:
    """What takes exactly the limit is not touched."""
    limit = len(encode_json(first)) + len(encode_json(second))

    assert ((first, second), 0) == fit_payloads((first, second), limit)


@examples(100)
@given(payloads.filter(bool))
@example({"\U0001f600" * 40: "\U0001f600" * 40})
@example({"": [-2.2250738585072014e-308] * 40})
@example({"": [None, True, False] * 40})
@example({"": ["\0"] * 40})
def test_one_byte_too_many_is_noticed(payload: dict[str, Any]) -> None:
    """A payload of a byte more than the limit is cut, whatever its characters and numbers take as text."""
    limit = len(encode_json(payload)) - 1
    _, cut = fit_payloads((payload,), limit)

    assert cut > 0


@examples(100)
@given(st.text(max_size=80), st.integers(min_value=0, max_value=60))
def test_fitted_text_takes_at_most_the_limit(text: str, limit: int) -> None:
    """Text within the limit stays; longer text fits, and shows that it was cut where there is room to."""
    fitted = fit_text(text, limit)
    size = len(text.encode())

    assert len(fitted.encode()) <= max(limit, 0)
    assert (text == fitted) == (size <= limit)
    assert size <= limit or limit < len(f" [{CUT_MARKER}, {size} bytes]") or CUT_MARKER in fitted
