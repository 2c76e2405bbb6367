"""Whatever a store keeps is shown: in every view, as text and as JSON, on any terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from run_log.console.checks import Check, Verdict
from run_log.console.views.layout import Screen, Sheet, Table, literal
from run_log.console.views.output import json_text
from run_log.console.views.records import handled_record, letter_record
from run_log.console.views.tables import (
    checks_table,
    failures_table,
    findings_table,
    handled_table,
    history_table,
    letter_sheet,
    letters_table,
    pending_table,
    run_line,
    run_sheet,
    runs_table,
    stale_table,
    summary_view,
    workflows_table,
)
from run_log.core import PauseRequest, ReceivedMessage, RunEvent, RunStatus
from run_log.projector import DeadLetter, HandledLetter, LetterOutcome
from run_log.stores import InMemoryRunLogService, page_json
from run_log.testing import a_run, an_event

from .core_strategies import anything, events, examples

Shown = tuple[Iterable[Table | Sheet], Mapping[str, Any], list[str]]
"""Views of something, its JSON, and the ids that each view shows."""

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)

ENCODINGS = ["utf-8", "ascii", "cp1252", "latin-1", "cp437"]
screens = st.builds(
    Screen,
    width=st.sampled_from([None, 1, 40, 80, 200]),
    encoding=st.sampled_from(ENCODINGS),
)

near_events = events.map(lambda event: event.model_copy(update={"hlc": event.hlc % 2**52}))
few_events = st.lists(near_events, min_size=1, max_size=4, unique_by=lambda event: event.key)
texts = st.text(max_size=40)


def _nested(levels: int) -> object:
    value: object = "\U0001f600"
    for level in range(levels):
        value = {"\ud800": value} if level % 2 else [value]
    return value


def _odd_runs() -> list[RunEvent]:
    """Return runs that had taken a whole page away."""
    ended: dict[str, Any] = {
        "status": RunStatus.FAILED,
        "error": "[red]\x1b[2J\nq\u0301\u5b57\U0001f600 " + "e" * 10_000,
    }
    fields: list[dict[str, Any]] = [
        {"duration_ms": 1.8e18},
        {"duration_ms": -1e308},
        {"started_at": datetime.min.replace(tzinfo=UTC), "completed_at": datetime.max.replace(tzinfo=UTC)},
        {"trigger_data": {"a": _nested(300)}, "result": {"a": _nested(498)}},
        {"result": {"\ud800": {"\udfff": "\x00\u202e"}, "n": -(10**4_000)}},
        {"status": RunStatus.PAUSED, "pause": PauseRequest(reason="", assignee="\x00", deadline=NOW)},
    ]
    ids = [" ", "\x1b[2J\x00", "\u202e\u200f[/]", "i" * 1_024, "two\nlines", "\u5b57" * 90]
    return [
        an_event(a_run(id=run_id, workflow_id=run_id, **{**ended, **changed}), event_id=f"event-{n}")
        for n, (run_id, changed) in enumerate(zip(ids, fields, strict=True))
    ]


async def _of_runs(facts: list[RunEvent]) -> AsyncIterator[Shown]:
    """Yield all that there is to show of the runs of *facts*."""
    log = InMemoryRunLogService(now=lambda: NOW)
    await log.apply(facts)
    for workflow_id in {event.run.workflow_id for event in facts}:
        runs, _ = await log.list_runs(workflow_id)
        ids = [run.id for run in runs]
        yield [runs_table(runs), runs_table(runs, workflow_id=workflow_id)], {}, ids
        for run in runs:
            yield [run_sheet(run), run_line(run)], run.to_json(), [run.id, workflow_id]
        summary = await log.get_summary(workflow_id, now=NOW)
        yield summary_view(summary), summary.to_json(), []
        for run in runs:
            history = await log.get_history(*run.key)
            yield [history_table(history)], page_json("of", history), []
    counted, _ = await log.list_workflows()
    records = page_json("of", counted)
    yield [workflows_table(counted)], records, [one.workflow_id for one in counted]
    pending, _ = await log.list_pending(now=NOW)
    yield [pending_table(pending)], page_json("of", pending), [one.run.id for one in pending]
    failures = await log.list_failures()
    records = page_json("of", failures)
    yield [failures_table(failures)], records, [one.newest.id for one in failures]
    stale, _ = await log.list_stale(timedelta(hours=1), now=NOW)
    yield [stale_table(stale)], page_json("of", stale), [one.run.id for one in stale]


def _check(shown: Shown, screen: Screen) -> None:
    """Check that views are lines that a terminal takes, with ids whole, and that JSON is the same value."""
    views, record, ids = shown
    for view in views:
        lines = list(view.lines(screen))
        assert all(line.isprintable() for line in lines)
        "".join(lines).encode(screen.encoding)  # nothing that it lacks is left
        told = "\n".join(lines)
        missing = [name for name in ids if literal(name, screen.encoding).rstrip() not in told]
        assert not missing
    for indent in (None, 2):
        text = json_text(record, indent=indent)
        assert text.isascii()
        assert record == json.loads(text, parse_constant=int)


@pytest.mark.search
@examples(60)
@given(few_events, screens)
@example(_odd_runs(), Screen(width=80))
@example(_odd_runs(), Screen(width=80, encoding="ascii"))
@example(_odd_runs(), Screen())
def test_every_run_is_shown(facts: list[RunEvent], screen: Screen) -> None:
    """Each run that a store keeps is in every view, its ids whole, and its JSON gives the same values."""

    async def checked() -> None:
        async for shown in _of_runs(facts):
            _check(shown, screen)

    asyncio.run(checked())


@examples(60)
@given(
    st.lists(texts, min_size=4, max_size=4),
    st.binary(max_size=30) | texts.map(json.dumps).map(str.encode),
    screens,
)
@example(["\x1b[2J"] * 4, b"[" * 400 + b"]" * 400, Screen(width=80))
@example([""] * 4, b"[1e999, NaN]", Screen(width=80))
def test_every_dead_letter_is_shown(told: list[str], data: bytes, screen: Screen) -> None:
    """Each dead letter is in every view, whatever its body and its attributes are."""
    message_id, reason, error, name = told
    letter = DeadLetter.from_message(
        ReceivedMessage(
            data=data,
            attributes={"run-log-reason": reason, "run-log-error": error, "own": name},
            message_id=message_id,
            ack_id="a",
            published_at=datetime.max.replace(tzinfo=UTC),
        )
    )
    handled = HandledLetter(letter=letter, outcome=LetterOutcome.KEPT, why=error)

    _check(([letters_table([letter]), letter_sheet(letter)], {}, [message_id]), screen)
    _check(([handled_table([handled], dry_run=True)], handled_record(handled, dry_run=True), []), screen)
    json.loads(json_text(letter_record(letter)), parse_constant=int)


@examples(60)
@given(st.lists(texts, min_size=5, max_size=5), screens)
def test_every_finding_is_shown(told: list[str], screen: Screen) -> None:
    """What verify and doctor find is shown, whatever it is about."""
    check = Check(name=told[0], verdict=Verdict.WRONG, found=told[1], remedy=told[2])

    _check(
        (
            [
                findings_table(["workflow", "what", "stored", "recounted", "note"], [told]),
                checks_table([check]),
            ],
            check.record,
            told[:1],
        ),
        screen,
    )


@given(st.text(anything), st.sampled_from(ENCODINGS))
def test_any_text_is_literal(text: str, encoding: str) -> None:
    """Any text is shown on one line that commands no terminal, in characters that its encoding has."""
    shown = literal(text, encoding)

    assert shown.isprintable()
    assert shown == shown.encode(encoding).decode(encoding)
