"""The filter of a listing, as a function of its text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_log.core import RunRef, RunStatus
from run_log.core.fields import MAX_LABEL_LENGTH
from run_log.dashboard.api.filters import MAX_FILTER, conditions_of
from run_log.dashboard.errors import InvalidFilterError
from run_log.dashboard.paths import segment_of
from run_log.stores.listings import Selection

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)

SPACES = st.text(" \t\n", max_size=2)
TEXTS = st.text(min_size=1, max_size=20)
KEYS = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,20}", fullmatch=True)
WORDS = st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True)
TIMES = st.datetimes(max_value=datetime(9999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis asks for it
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)


def quoted(text: str) -> str:
    """Return *text* as a filter has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def filters(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Return the text of a filter, and what it asks for."""
    asked: dict[str, Any] = {}
    conditions: list[tuple[str, str, str]] = []
    if draw(st.booleans()):
        asked["status"] = draw(st.sampled_from(RunStatus))
        conditions.append(("status", "=", asked["status"].value))
    if draw(st.booleans()):
        asked["trigger_type"] = draw(WORDS)
        conditions.append(("trigger_type", "=", asked["trigger_type"]))
    if draw(st.booleans()):
        asked["error_type"] = draw(TEXTS)
        conditions.append(("error_type", "=", quoted(asked["error_type"])))
    if draw(st.booleans()):
        asked["parent"] = RunRef(draw(IDS), draw(IDS))
        conditions.append(("parent", "=", quoted("/".join(map(segment_of, asked["parent"])))))
    for operator, name in ((">=", "since"), ("<", "until")):
        if draw(st.booleans()):
            asked[name] = draw(TIMES)
            conditions.append(("started_at", operator, asked[name].isoformat()))
    if labels := draw(st.dictionaries(KEYS, st.text(max_size=20), max_size=3)):
        asked["label"] = labels
        conditions += [(f"labels.{key}", "=", quoted(value)) for key, value in labels.items()]
    shuffled = draw(st.permutations(conditions))
    parts = [draw(SPACES).join((name, operator, value)) for name, operator, value in shuffled]
    return f"{draw(SPACES)}{' AND '.join(parts)}{draw(SPACES)}", asked


@given(filters())
def test_a_filter_asks_for_what_it_says(case: tuple[str, dict[str, Any]]) -> None:
    """Whatever the conditions, their order, their spaces and their texts are, they are read as written."""
    text, asked = case

    assert asked == conditions_of(text)


@given(st.one_of(st.text(max_size=60), filters().map(lambda case: case[0])), st.data())
def test_any_text_is_read_or_refused(text: str, data: st.DataObject) -> None:
    """Any text, and any filter that is changed somewhere, is refused, or read so that stores take it."""
    at = data.draw(st.integers(0, len(text)))
    put = data.draw(st.sampled_from(["", '"', "'", "\\", "=", "AND", "(", "\x00", "é"]))
    changed = f"{text[:at]}{put}{text[at + 1 :]}"
    try:
        found = conditions_of(changed)
    except InvalidFilterError:
        return

    Selection.of(**found)


@pytest.mark.parametrize(
    ("text", "at", "allowed"),
    [
        ("state = failed", 1, "status"),
        ("(status = failed)", 1, "labels.KEY"),
        ("labels.Customer = x", 1, "labels.KEY"),
        ("labels. = x", 1, "labels.KEY"),
        ("status", 7, "="),
        ("status != failed", 8, "="),
        ("status >= failed", 8, "="),
        ("started_at > 2026-03-04T12:00:00Z", 12, ">= or <"),
        ("status = ", 10, "a word"),
        ('error_type = "Value', 14, "a text in quotes"),
        ("status = broken", 10, "pending, running"),
        ("trigger_type = Cron", 16, "a letter first"),
        ("error_type = ''", 14, "the name of an exception"),
        ("parent = w", 10, "workflow/run"),
        ("parent = w/r/s", 10, "workflow/run"),
        ("parent = w/~r", 10, "workflow/run"),
        ("started_at < 2026-03-04T12:00:00", 14, "RFC 3339"),
        ("started_at < yesterday", 14, "RFC 3339"),
        ("started_at = 9999-12-31T23:59:59.999999Z", 14, "RFC 3339"),
        (f"labels.a = {'x' * (MAX_LABEL_LENGTH + 1)}", 12, "128 characters"),
        ("status = failed OR status = paused", 17, "AND"),
        ("status = failed, paused", 16, "AND"),
        ("status = failed AND", 20, "status"),
        ("status = failed AND AND", 21, "status"),
    ],
)
def test_a_fault_is_pointed_at(text: str, at: int, allowed: str) -> None:
    """What cannot be read is named with its place, and with what may stand there."""
    with pytest.raises(InvalidFilterError, match=rf"^at character {at} ") as raised:
        conditions_of(text)

    assert allowed in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("labels.a = b or", "at character 14 of the filter comes AND or nothing more, not 'or'"),
        ("status", "at character 7 of the filter comes =, but the filter ends"),
    ],
)
def test_a_fault_is_a_sentence(text: str, told: str) -> None:
    """A fault says what had to come, and what came."""
    with pytest.raises(InvalidFilterError, match=rf"^{told}$"):
        conditions_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "status = failed AND status = paused",
        "labels.a = b AND labels.a = b",
        "started_at >= 2026-03-04T12:00:00Z AND started_at = 2026-03-04T12:00:00Z",
    ],
)
def test_one_thing_is_said_once(text: str) -> None:
    """Two conditions that say the same of a run are refused."""
    with pytest.raises(InvalidFilterError, match=r"^two conditions"):
        conditions_of(text)


def test_a_filter_has_an_end() -> None:
    """A filter of any length is refused at once."""
    with pytest.raises(InvalidFilterError, match="10000"):
        conditions_of(" " * (MAX_FILTER + 1))


def test_a_start_can_be_named_exactly() -> None:
    """A start that is named is that microsecond."""
    expected = {"since": NOON, "until": NOON + timedelta(microseconds=1)}

    assert expected == conditions_of("started_at=2026-03-04T12:00:00Z")
