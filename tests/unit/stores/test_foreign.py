from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from run_log.core import RunStatus, TriggerType, UnreadableRunError
from run_log.stores.firestore._foreign import NAIVE_TIME, OTHER_TRIGGER, document_text, foreign_run

NOON: Final = datetime(2026, 3, 4, 12, tzinfo=UTC)
PLACE: Final = ("w", "r")


def document(**fields: Any) -> dict[str, Any]:
    """Return the least that a document without a projection map holds of a run."""
    return {"status": "running", "started_at": "2026-03-04T12:00:00Z", **fields}


@pytest.mark.parametrize(
    ("text", "assumed"),
    [
        ("2026-03-04T12:00:00Z", set[str]()),
        ("2026-03-04T12:00:00+00:00", set[str]()),
        ("2026-03-04T17:30:00.000000+05:30", set[str]()),
        ("2026-03-04 12:00:00", {NAIVE_TIME}),
        ("2026-03-04T12:00:00.000000", {NAIVE_TIME}),
        (NOON, set[str]()),
    ],
)
def test_times(text: object, assumed: set[str]) -> None:
    """Times are read as text of any offset; without one they are taken as UTC, and that is told."""
    run, found = foreign_run(
        document(started_at=text, completed_at=text, pause={"deadline": text}), place=PLACE
    )

    assert (NOON, NOON, assumed) == (run.started_at, run.completed_at, found)
    assert run.pause is not None
    assert run.pause.deadline == NOON


@pytest.mark.parametrize("word", ["success", "SUCCESS", "RunStatus.SUCCESS"])
def test_words(word: str) -> None:
    """A status or a trigger type is known in any case, and with its enumeration's name before it."""
    run, assumed = foreign_run(document(status=word, trigger_type="TriggerType.GMAIL_PUSH"), place=PLACE)

    assert (RunStatus.SUCCESS, TriggerType.GMAIL_PUSH, set[str]()) == (run.status, run.trigger_type, assumed)


def test_what_is_missing() -> None:
    """Ids come from the document's place, the rest is as of a run of which nothing more is known."""
    run, assumed = foreign_run(document(trigger_data=None), place=("a%2Fb", "r"))

    assert (("a/b", "r"), TriggerType.MANUAL, {}, {}, 1, None) == (
        run.key,
        run.trigger_type,
        run.trigger_data,
        run.result,
        run.attempt,
        run.pause,
    )
    assert not assumed


def test_an_unknown_trigger() -> None:
    """A text that is no trigger type becomes manual, and that is told; any word is one."""
    run, assumed = foreign_run(document(trigger_type="every day"), place=PLACE)
    word, _ = foreign_run(document(trigger_type="cron"), place=PLACE)

    assert (TriggerType.MANUAL, {OTHER_TRIGGER}, "cron") == (run.trigger_type, assumed, word.trigger_type)


@pytest.mark.parametrize("name", ["labels", "parent", "trace_id", "error_type"])
@pytest.mark.parametrize("value", ["text", ["a"], {"a": 1}, 7])
def test_what_it_means_by_our_newer_names_is_not_read(name: str, value: object) -> None:
    """A document that another service wrote may mean anything by a name that run-log uses since."""
    run, _ = foreign_run(document(**{name: value}), place=PLACE)

    assert getattr(run, name) in ({}, None)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"started_at": "soon"}, "soon"),
        ({"started_at": None}, "not a timestamp"),
        ({"started_at": 1_772_625_600}, "not a timestamp"),
        ({"pause": {"deadline": "later"}}, "later"),
        ({"status": "asleep"}, "status"),
        ({"status": None}, "status"),
        ({"id": "another"}, "it says that it is run 'another'"),
        ({"workflow_id": "another"}, "of workflow 'another'"),
        ({"started_at": "9999-12-31T23:59:59-01:00"}, "outside|9999"),
    ],
)
def test_what_is_no_run(fields: dict[str, Any], told: str) -> None:
    """What holds no run, or that of another place, says so."""
    with pytest.raises(UnreadableRunError, match=told):
        foreign_run(document(**fields), place=PLACE)


def test_ids_that_are_not_escaped() -> None:
    """Another service puts a run below its very ids, where run-log would escape them."""
    run, _ = foreign_run(document(id="50%", workflow_id="ä ö"), place=("ä ö", "50%"))

    assert ("ä ö", "50%") == run.key


def test_a_document_as_text() -> None:
    """What JSON has no word for is a text in what people look at."""
    text = document_text({"a": NOON, "b": b"\xff", "c": {"d": [1, None]}})

    assert {"a": NOON.isoformat(), "b": "b'\\xff'", "c": {"d": [1, None]}} == json.loads(text)
