from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from run_log.console.options import duration, json_object, moment
from run_log.core import InvalidArgumentError

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "time"),
    [("0s", timedelta(0)), ("90m", 1.5 * HOUR), ("24h", 24 * HOUR), ("2d", timedelta(days=2))],
)
def test_times(text: str, time: timedelta) -> None:
    """A time is a whole number of seconds, minutes, hours or days."""
    assert time == duration(text)


@pytest.mark.parametrize(
    "text", ["", "5", "h", "1w", "-1h", "1.5h", " 1h", "1h ", "1H", "9999999s", "\u0661h"]
)
def test_what_is_no_time(text: str) -> None:
    """Anything else is an error that says what is one."""
    with pytest.raises(InvalidArgumentError, match="such as 90m or 2d"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("2h", NOON - 2 * HOUR),
        ("2026-03-04", NOON - 12 * HOUR),
        ("2026-03-04T12:00:00Z", NOON),
        ("2026-03-04T12:00:00", NOON),
        ("2026-03-04T12:00:00+02:00", datetime(2026, 3, 4, 12, tzinfo=timezone(2 * HOUR))),
    ],
)
def test_moments(text: str | None, expected: datetime | None) -> None:
    """A moment is how long ago it was, a date, or a time, in UTC where it does not say; or was not given."""
    assert expected == moment(text, NOON)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "9999999h", "-2h", "999999d"])
def test_what_is_no_moment(text: str) -> None:
    """Anything else is an error that says what is one, also what is longer ago than any moment."""
    told = "longer ago" if text == "999999d" else "such as 2026-03-04T12:00:00Z"
    with pytest.raises(InvalidArgumentError, match=told):
        moment(text, NOON)


@pytest.mark.parametrize(("text", "value"), [(None, {}), ("{}", {}), ('{"a": [1]}', {"a": [1]})])
def test_json_objects(text: str | None, value: dict[str, object]) -> None:
    """A payload is a JSON object; nothing is an empty one."""
    assert value == json_object(text, "--data")


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", '"a"'])
def test_what_is_no_json_object(text: str) -> None:
    """Anything else is an error that names the option."""
    with pytest.raises(InvalidArgumentError, match="--data is"):
        json_object(text, "--data")
