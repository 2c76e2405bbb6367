"""Times, durations and other people's texts, as pages write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from markupsafe import Markup

from run_log.dashboard.pages.texts import first_line, json_text, moment, since, took, took_ms, visible

NOON = datetime(2026, 3, 4, 12, 0, 5, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 ms"),
        (0, "0 ms"),
        (0.8432, "843 ms"),
        (1.54, "1.5 s"),
        (59.9, "59 s"),
        (133, "2 m 13 s"),
        (3_600 * 3 + 61, "3 h 1 m"),
        (86_400 * 2 + 3_600 * 4, "2 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """A duration has its two largest units."""
    assert text == took(timedelta(seconds=seconds))


@pytest.mark.parametrize(("milliseconds", "text"), [(1_500.0, "1.5 s"), (1e300, "925925925 d 22 h")])
def test_durations_of_runs(milliseconds: float, text: str) -> None:
    """A run's duration may be any number."""
    assert text == took_ms(milliseconds)


def test_moments() -> None:
    """A moment is shown in UTC to the second, in lists without the year where that is the present one."""
    exact = '<time datetime="2026-03-04T12:00:05Z">'

    assert f"{exact}2026-03-04 12:00:05</time>" == moment(NOON)
    assert f"{exact}03-04 12:00:05</time>" == moment(NOON, NOON)
    assert f"{exact}2026-03-04 12:00:05</time>" == moment(NOON, NOON.replace(year=2027))
    assert '<time datetime="0001-01-01T00:00:00Z">0001-01-01 00:00:00</time>' == moment(
        datetime.min.replace(tzinfo=UTC)
    )
    assert '<span data-since="2026-03-04T12:00:05Z">1 m 0 s</span>' == since(
        NOON, NOON + timedelta(minutes=1)
    )


def test_what_nobody_sees() -> None:
    """What has no shape, or turns the text around it, is shown as an escape; lines and joiners stay."""
    assert r"a\u202eb\x00\x1b[0m\u2028" == visible("a\u202eb\0\x1b[0m\u2028")
    assert "ü\n\t→👩\u200d👧" == visible("ü\n\t→👩\u200d👧")
    assert Markup("<b>\u202e</b>") == visible(Markup("<b>\u202e</b>"))
    assert "␣␣" == visible("  ")
    assert visible(7) == 7


@pytest.mark.parametrize(
    ("text", "line"), [(None, ""), ("", ""), ("\n \n a \nb", "a"), ("x" * 161, "x" * 159 + "…")]
)
def test_first_lines(text: str | None, line: str) -> None:
    """A list shows the first line with a text, cut if it is long."""
    assert line == first_line(text)


def test_json() -> None:
    """JSON is indented for people, on one line where it is deep, and in its nearest form where it is none."""
    deep: list[object] = []
    for _ in range(40):
        deep = [deep]
    endless: list[object] = []
    for _ in range(5_000):
        endless = [endless]

    assert '{\n  "a": "ü"\n}' == json_text({"a": "ü"})
    assert "\n" not in json_text(deep)
    assert "\n" not in json_text(endless)
    assert '"NaN"' == json_text(float("nan"))
