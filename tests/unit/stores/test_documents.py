"""The stored form of a run: its size is known before a store is asked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from run_log.core import (
    Outcome,
    PauseRequest,
    RunStatus,
    Transition,
    UnreadableRunError,
    Version,
    WorkflowRun,
)
from run_log.core.clock import moment_of
from run_log.core.counters import Counted
from run_log.core.forms import MAX_FORM_BYTES, MAX_VALUES_BYTES
from run_log.core.ids import document_id
from run_log.core.law import fold, newest_event, run_digest
from run_log.core.models import fit_run, snapshot
from run_log.core.nearest import MAX_PAYLOAD_BYTES
from run_log.core.pause_fields import MAX_CHOICE_BYTES, MAX_CHOICES
from run_log.core.payload import MAX_TEXT_BYTES
from run_log.core.steps import MAX_STEPS_BYTES
from run_log.stores.audit.port import RunDocument, run_record
from run_log.stores.committing.commits import TRIM_HISTORY_AT
from run_log.stores.stored.fields import HISTORY, MAX_DOCUMENT_BYTES, PROGRESS_DIGEST, PROJECTION
from run_log.stores.stored.reading import head_from_fields, run_from_fields, transition_from_text
from run_log.stores.stored.writing import (
    document_bytes,
    history_bytes,
    history_texts,
    projection_fields,
    run_fields,
    transition_text,
)
from run_log.testing import a_run, an_event

LATE = datetime(9999, 12, 31, tzinfo=UTC)


def firestore_bytes(value: object) -> int:
    """Return what Firestore counts for *value*.

    See https://firebase.google.com/docs/firestore/storage-size.
    """
    if isinstance(value, str):
        return len(value.encode()) + 1
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return sum(firestore_bytes(name) + firestore_bytes(item) for name, item in fields.items())
    if isinstance(value, list):
        return sum(map(firestore_bytes, cast("list[object]", value)))
    return 1 if value is None or isinstance(value, bool) else 8


def stored_bytes(run: WorkflowRun, transitions: int) -> int:
    """Return what Firestore counts for the whole document of *run*, its event ids as long as can be."""
    event = an_event(run, hlc=2**62 - 1, event_id='"' * 128, inferred=True)
    history = [transition_text(Transition.of(event), "d" * 20)] * transitions
    fields: dict[str, Any] = {
        **run_fields(run),
        PROJECTION: {**projection_fields(event, Counted(micros=2**60, hour=2**40)), HISTORY: history},
    }
    path = ["autopilot_runs", document_id(run.workflow_id), "runs", document_id(run.id)]
    return sum(map(firestore_bytes, path)) + 16 + firestore_bytes(fields) + 32


@pytest.mark.parametrize("transitions", [1, 100])
@pytest.mark.parametrize(
    "run",
    [
        a_run(),
        a_run(id="\x00" * 1_024, workflow_id="\U0001f600" * 256),
        a_run(
            trigger_data={"a": "x" * (MAX_PAYLOAD_BYTES // 2)}, result={"a": "x" * 1_000}, error="e" * 9_000
        ),
        a_run(
            status=RunStatus.PAUSED,
            attempt=2**31 - 1,
            started_at=LATE,
            completed_at=LATE,
            pause=PauseRequest(reason="r" * 9_000, assignee="a", deadline=LATE, answered_by="b"),
        ),
        a_run(
            pause=PauseRequest(
                answered_by="b" * 200,
                choice="c" * 200,
                comment="é" * 200,
                values={"v": "v" * 244, "w": "v" * 4},
            )
        ),
        a_run(
            status=RunStatus.PAUSED,
            pause=PauseRequest(
                choices=tuple("é" * n for n in range(1, 50)),
                default_choice="é",
                choice="é" * 500,
                form={"enum": [[1], "\ud800"]},
                values={"a": 10**40},
            ),
        ),
    ],
    ids=["small", "long ids", "payloads", "paused", "answered", "offering"],
)
def test_a_document_is_never_larger_than_foreseen(run: WorkflowRun, transitions: int) -> None:
    """The size foreseen for a run's document is never less than what Firestore counts."""
    assert stored_bytes(run, transitions) <= document_bytes(run_fields(run)) + history_bytes(transitions)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": 5},
        {"result": "[" * 100_000},
        {"result": "[1]"},
        {"trigger_data": 5},
        {"started_at": None},
        {"started_at": "2026-03-04T12:00:00Z"},
        {"completed_at": 1e400},
        {"attempt": 10**400},
        {"duration_ms": "long"},
        {"pause": [[1]]},
        {"error": {"a": 1}},
        {"status": float("nan")},
        {5: "x", "id": None},
    ],
    ids=lambda changes: repr(changes)[:40],
)
def test_whatever_a_document_holds_it_is_a_run_or_unreadable(changes: dict[Any, Any]) -> None:
    """A document that holds something else than a run is unreadable, named, and nothing else is raised."""
    with pytest.raises(UnreadableRunError, match="run 'r' of workflow 'w'"):
        run_from_fields({**run_fields(a_run()), **changes}, ("w", "r"))


def test_a_negative_duration_is_read_as_none() -> None:
    """A document that was stored with a negative duration is read, and took no time."""
    stored = {**run_fields(a_run()), "duration_ms": -419_944.1}

    assert run_from_fields(stored, ("workflow-1", "run-1")).duration_ms == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": {"team": "a"}},
        {"labels": ["urgent"]},
        {"labels": [1]},
        {"labels": "urgent"},
        {"parent": "run-0"},
        {"parent": {"id": "run-0"}},
        {"progress": 40},
        {"progress": "half"},
    ],
)
def test_another_program_means_something_else_by_a_name(changes: dict[str, Any]) -> None:
    """A document without a projection map is not run-log's: what is no label there hides no run."""
    stored = {**run_fields(a_run()), **changes}
    key = ("workflow-1", "run-1")

    assert a_run() == run_from_fields(stored, key)
    # Our own would be damaged.
    with pytest.raises(UnreadableRunError):
        run_from_fields({**stored, "projection": {}}, key)


def test_what_an_earlier_version_stored_merges_as_before() -> None:
    """A document without digests takes its own event for a repeat, and one of a later version as newer."""
    run = a_run(status=RunStatus.RUNNING, pause=PauseRequest(answered_by="mei"))
    event, later = an_event(run, hlc=5, event_id="a"), an_event(run, hlc=6, event_id="a")
    fields = {
        **run_fields(run),
        PROJECTION: {
            **projection_fields(event, Counted()),
            HISTORY: [transition_text(Transition.of(event))],
        },
    }
    head = head_from_fields(fields, run.key).head

    assert '"mei"]' == fields[PROJECTION][HISTORY][0][-6:]
    assert (None, (Transition.of(event),)) == (head.digest, head.history)
    assert [Outcome.DUPLICATE, Outcome.APPLIED] == list(fold(head, [event, later]).outcomes)


def test_an_earlier_version_that_takes_over_leaves_the_digest_of_progress() -> None:
    """It writes the state and its transition. What it does not know stays, and contradicts nothing."""
    event = an_event(a_run(), hlc=6, event_id="a")
    change = fold(None, [event])
    fields = {
        **run_fields(event.run),
        PROJECTION: {
            **projection_fields(event, Counted()),
            HISTORY: history_texts(change.after, change.added),
            PROGRESS_DIGEST: "of what came before",
        },
    }
    record = run_record("workflow-1", RunDocument(id=document_id("run-1"), fields=fields))

    assert record.problem is None
    assert record.stored is not None
    assert run_digest(event.run) == record.stored.head.digest


def test_a_digest_goes_with_the_newest_state() -> None:
    """The newest transition's text has its state's digest, and of two in one version the one that counts."""
    event = an_event(a_run(result={"n": 1}), hlc=5, event_id="a")
    other = an_event(a_run(result={"n": 2}), hlc=5, event_id="a")
    first = fold(None, [event]).after
    second = fold(first, [other])
    texts = [*history_texts(first, first.history), *history_texts(second.after, second.added)]
    winner = newest_event([event, other])
    fields = {
        **run_fields(winner.run),
        PROJECTION: {**projection_fields(winner, Counted()), HISTORY: texts},
    }

    head = head_from_fields(fields, event.key).head

    assert run_digest(winner.run) == head.digest == fold(None, [event, other]).after.digest
    assert [Outcome.DUPLICATE] * 2 == list(fold(head, [event, other]).outcomes)


@pytest.mark.parametrize(
    ("text", "transition"),
    [
        ('[1,5,"e","running",0,0]', {}),
        ('[1,5,"e","running",0,0,"mei"]', {"answered_by": "mei"}),
        ('[1,5,"e","running",0,0,"mei","digest"]', {"answered_by": "mei"}),
        ('[1,5,"e","running",0,0,"","","pay","",null]', {"choice": "pay"}),
        ('[1,5,"e","running",0,0,"","","","é",{"a":1}]', {"comment": "é", "values_text": '{"a":1}'}),
    ],
)
def test_a_stored_transition_is_read(text: str, transition: dict[str, Any]) -> None:
    """A transition that any version stored is read, and stored again as the same text."""
    expected = Transition(
        version=Version(1, 5, "e"), status=RunStatus.RUNNING, occurred_at=moment_of(0), **transition
    )

    assert expected == transition_from_text(text)
    assert text == transition_text(expected, "digest" if "digest" in text else None)


def test_the_largest_run_fits_into_a_document() -> None:
    """A run of which everything is as large as can be fits into a document, with the longest history."""
    text, wide = "x" * MAX_TEXT_BYTES, "\U0001f600"
    pause: dict[str, Any] = {
        "reason": text,
        "comment": text,
        "assignee": "a" * 1_024,
        "answered_by": "a" * 1_024,
        "choices": [f"{number:02}".ljust(MAX_CHOICE_BYTES, "c") for number in range(MAX_CHOICES)],
        "default_choice": "00".ljust(MAX_CHOICE_BYTES, "c"),
        "choice": "00".ljust(MAX_CHOICE_BYTES, "c"),
        "form": {"description": "d" * (MAX_FORM_BYTES - 18)},
        "values": {"v": "v" * (MAX_VALUES_BYTES - 8)},
    }
    run = snapshot(
        {
            "id": "\x00" * 1_024,
            "workflow_id": wide * 256,
            "status": RunStatus.FAILED,
            "trigger_type": "t" * 64,
            "started_at": LATE,
            "error": text,
            "error_type": "e" * 256,
            "trace_id": "a" * 32,
            "parent": ("w" * 1_024, "\x00" * 1_024),
            "labels": {f"{number:02}".ljust(63, "k"): wide * 128 for number in range(20)},
            "trigger_data": {f"{number}": "x" * 1_000 for number in range(1_000)},
            "pause": pause,
        }
    )

    assert run.pause == PauseRequest(**pause)
    fields = run_fields(run)
    assert document_bytes(fields) > MAX_DOCUMENT_BYTES - 140_000
    assert document_bytes(fields) + history_bytes(TRIM_HISTORY_AT) <= MAX_DOCUMENT_BYTES
    with_steps = run_fields(fit_run(run, beside=MAX_STEPS_BYTES))
    most = MAX_DOCUMENT_BYTES - MAX_STEPS_BYTES
    assert document_bytes(with_steps) + history_bytes(TRIM_HISTORY_AT) <= most
