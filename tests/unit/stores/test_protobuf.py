from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from run_log.stores.firestore._documents import Write, set_fields, texts
from run_log.stores.firestore.client import fields_of


def _round_trip(fields: dict[str, Any]) -> dict[str, Any]:
    write = Write()
    set_fields(write.update.fields, fields)
    return fields_of(Write.FromString(write.SerializeToString()).update.fields)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "text \x00 \N{SNOWMAN}",
        None,
        True,
        False,
        0,
        -(2**63),
        2**63 - 1,
        0.0,
        -1e308,
        datetime(2026, 1, 1, 12, 30, 0, 123456, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        {},
        {"inner": {"deep": None, "": 1}, "text": "x"},
    ],
)
def test_a_stored_value_comes_back(value: object) -> None:
    """Every kind of value that a document holds comes back as it was, to the microsecond."""
    found = _round_trip({"value": value})["value"]

    assert (value, type(value)) == (found, type(found))


def test_a_moment_comes_back_in_utc() -> None:
    """A moment of another time zone comes back as the same moment in UTC."""
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))

    found = _round_trip({"moment": moment})["moment"]

    assert (moment, timedelta(0)) == (found, found.utcoffset())


def test_texts_come_back_in_order() -> None:
    """Texts of an array come back in order."""
    write = Write()
    texts(write.update.fields["history"].array_value.values, ["b", "a", "b"])

    assert {"history": ["b", "a", "b"]} == fields_of(write.update.fields)


@pytest.mark.parametrize("value", [b"bytes", (1,), {1, 2}, object()])
def test_a_value_that_is_not_stored(value: object) -> None:
    """A value of a kind that no document of ours holds is an error, not something else."""
    with pytest.raises(TypeError, match="is not stored as such"):
        _round_trip({"value": value})


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "\ud800"])
def test_a_value_that_no_protocol_buffer_holds(value: object) -> None:
    """A number or a text that a protocol buffer cannot hold is an error before anything is sent."""
    with pytest.raises(ValueError, match=r"."):
        _round_trip({"value": value})
