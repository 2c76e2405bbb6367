from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from run_log.core import Outcome, PauseRequest, RunEvent, RunStatus, Transition
from run_log.core.clock import HybridLogicalClock
from run_log.core.history import MAX_HISTORY, annotated, mark_anomalies
from run_log.core.law import by_run, fold, run_digest
from run_log.core.stats import StatsDelta, count_statuses
from run_log.core.steps import Step, StepStatus, joined_steps, step_text
from run_log.stores.stored.reading import transition_from_text
from run_log.stores.stored.writing import transition_text

from .builders import NOON, make_event, make_run

ENDED = [RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.SKIPPED, RunStatus.CANCELLED]


def test_a_fold_needs_an_event() -> None:
    """Folding nothing onto nothing is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least one event"):
        fold(None, [])


def test_the_first_event_is_applied() -> None:
    """A run not seen before is added, with its event stored and its stats counted."""
    event = make_event(status=RunStatus.SUCCESS)
    change = fold(None, [event])

    assert (change.outcomes, change.anomalies) == ((Outcome.APPLIED,), 0)
    assert event == change.winner
    assert StatsDelta(total=1, successful=1, by_status={RunStatus.SUCCESS: 1}) == change.delta


def test_a_late_event_goes_to_the_history_only() -> None:
    """An event older than the state is stale: nothing is stored but its transition, no stats change."""
    before = fold(None, [make_event(2, status=RunStatus.SUCCESS)]).after
    change = fold(before, [make_event(1, status=RunStatus.RUNNING)])

    assert (change.outcomes, change.winner) == ((Outcome.STALE,), None)
    assert [line.version.event_id for line in change.added] == ["e001"]
    assert RunStatus.SUCCESS is change.after.status
    assert (StatsDelta(), {}) == (change.delta, change.counters)


def test_an_event_within_the_batch_can_be_overtaken_there() -> None:
    """Two events of one batch are both applied in order; the newest is what is stored."""
    running, success = make_event(1), make_event(2, status=RunStatus.SUCCESS)
    change = fold(None, [running, success])

    assert change.outcomes == (Outcome.APPLIED, Outcome.APPLIED)
    assert success == change.winner


def test_the_attempt_then_the_clock_then_the_identity_orders() -> None:
    """A later attempt beats a later clock; a tie on the clock is broken by the ids, alike for everybody."""
    retry, late = make_event(1, attempt=2), make_event(9, status=RunStatus.FAILED)
    one, other = make_event(1, hlc=5, status=RunStatus.FAILED), make_event(2, hlc=5)

    assert RunStatus.RUNNING is fold(None, [retry, late]).after.status
    assert RunStatus.RUNNING is fold(None, [other, one]).after.status


def test_an_event_that_fell_out_of_a_full_history_changes_nothing() -> None:
    """Redelivered after fifty newer ones, an old event is stale and adds nothing."""
    events = [make_event(number) for number in range(MAX_HISTORY + 1)]
    before = fold(None, events).after
    change = fold(before, events[:1])

    assert (change.outcomes, change.added) == ((Outcome.STALE,), ())
    assert before == change.after


@pytest.mark.parametrize("before", RunStatus)
@pytest.mark.parametrize("after", RunStatus)
def test_the_state_machine(before: RunStatus, after: RunStatus) -> None:
    """A pending run may become anything, a started one is never pending again, an ended one stays so.

    A step that breaks this is applied by version and marked, unless it begins a new attempt.
    """
    is_fine = (before not in ENDED and after is not RunStatus.PENDING) or before is after
    first = make_event(1, status=before)
    change = fold(None, [first, make_event(2, status=after)])
    retried = fold(None, [first, make_event(2, status=after, attempt=2)]).after.history

    assert [False, not is_fine] == [line.anomaly for line in mark_anomalies(change.after.history)]
    assert int(not is_fine) == change.anomalies
    assert [False, False] == [line.anomaly for line in mark_anomalies(retried)]


def test_what_follows_from_the_order_of_a_history() -> None:
    """A state lasts until the next one, never less than nothing. An answer is shown once, after its pause."""
    answered = PauseRequest(reason="why", answered_by="mei")
    late, early = NOON + timedelta(minutes=5), NOON - timedelta(minutes=1)
    events = [
        make_event(1),
        make_event(2, occurred_at=late, status=RunStatus.PAUSED, pause=PauseRequest(reason="why")),
        make_event(3, occurred_at=early, pause=answered),
        make_event(4, occurred_at=early, status=RunStatus.SUCCESS, pause=answered),
    ]
    history = annotated(fold(None, events).after.history)

    assert [timedelta(minutes=5), timedelta(0), timedelta(0), None] == [line.lasted for line in history]
    assert [None, None, "mei", None] == [line.answered_by for line in history]


def test_an_answer_is_in_the_history_once() -> None:
    """Choice, values and comment stand where they ended the pause, also once the run pauses again."""
    answer = PauseRequest(reason="why", choice="pay", comment="as agreed", values={"amount": 5})
    paused = {"status": RunStatus.PAUSED, "pause": PauseRequest(reason="why")}
    states: list[dict[str, Any]] = [paused, {"pause": answer}, {"pause": answer}, paused]
    events = [make_event(number, **state) for number, state in enumerate(states)]
    history = annotated(fold(None, events).after.history)

    shown = [(line.choice, line.comment, line.values) for line in history]
    assert [(None, None, None), ("pay", "as agreed", {"amount": 5}), *2 * [(None, None, None)]] == shown


@pytest.mark.parametrize(
    "answers",
    [
        [{"answered_by": "mei"}, {"answered_by": "bob"}, {}],
        [{"choice": "yes"}, {"choice": "no"}, {}],
        [{"comment": "yes"}, {"comment": "no"}, {}],
        [{"values": {"a": True}}, {"values": {"a": 1}}, {"values": {"a": 1.0}}, {}],
        [{"values": {"b": 1, "a": 2}}, {"values": {"a": 2, "b": 1}}, {}],
    ],
    ids=repr,
)
def test_two_answers_in_one_version_end_the_same(answers: list[dict[str, Any]]) -> None:
    """Of two events in one version that differ in the answer, the same one is kept in any order."""
    events = [make_event(pause=PauseRequest(reason="why", **answer)) for answer in answers]
    kept = {
        transition_text(fold(fold(None, order[:1]).after, order[1:]).after.history[0])
        for order in permutations(events)
    }

    assert 1 == len(kept)


def test_of_two_events_in_one_version_one_wins_in_any_order() -> None:
    """The observed one beats a later inferred one; where only payloads differ, the same one always wins."""
    late = NOON + timedelta(hours=1)
    seen, inferred = make_event(), make_event(status=RunStatus.FAILED, inferred=True, occurred_at=late)
    one, other = make_event(result={"a": 1}), make_event(result={"a": 2})

    assert seen == fold(None, [seen, inferred]).winner == fold(None, [inferred, seen]).winner
    assert fold(None, [one, other]).winner == fold(None, [other, one]).winner
    late_ones = [fold(fold(None, [known]).after, [late]) for known, late in ((one, other), (other, one))]
    assert {(Outcome.APPLIED,), (Outcome.DUPLICATE,)} == {change.outcomes for change in late_ones}


@pytest.mark.parametrize(
    ("fields", "digest"),
    [
        ({}, "ZyyBSsmjODrloFVP5uZ5"),
        (
            {
                "trigger_data": {"a": 1},
                "result": {"b": 2},
                "error": "no",
                "completed_at": NOON + timedelta(seconds=1),
                "duration_ms": 1,
                "pause": PauseRequest(reason="why", deadline=NOON, answered_by="mei"),
            },
            "5Z8ZJ9ExubNgEeh30RkS",
        ),
    ],
    ids=["what is required", "all"],
)
def test_a_stored_digest_is_made_again(fields: dict[str, Any], digest: str) -> None:
    """Every version makes the digest that earlier ones have stored, or a repeat would look like news."""
    assert digest == run_digest(make_run(**fields))


def test_a_save_that_is_stored_keeps_its_version() -> None:
    """A save whose answer was lost is found in the history; others come after all that is stored."""
    head = fold(None, [make_event(1, hlc=8), make_event(2, hlc=9)]).after
    again, new, retried = (make_event(1), make_event(3), make_event(1, attempt=2))

    saved = [head.saved(event, clock=HybridLogicalClock()) for event in (again, new, retried)]

    assert again.model_copy(update={"hlc": 8}) == saved[0]
    assert all(head.version < event.version for event in saved[1:])


@pytest.mark.parametrize(
    ("status", "name", "kept"),
    [
        (RunStatus.RUNNING, "x" * 126, "x" * 126),
        (RunStatus.RUNNING, "x" * 127, "x" * 94 + "…"),
        (RunStatus.RUNNING, "é" * 22, "é" * 15 + "…"),
        (RunStatus.RUNNING, "", None),
        (RunStatus.PAUSED, "mei", None),
    ],
    ids=["short", "long", "long as JSON", "empty", "paused again"],
)
def test_who_answered_is_kept(status: RunStatus, name: str, kept: str | None) -> None:
    """A history keeps at most 128 bytes of JSON text of who ended a pause, and shows that it was cut."""
    event = make_event(status=status, pause=PauseRequest(reason="why", answered_by=name))
    (line,) = fold(None, [event]).after.history

    assert kept == line.answered_by


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ({"choice": "x" * 126}, ("x" * 126, None, None)),
        ({"choice": "x" * 127}, ("x" * 94 + "…", None, None)),
        ({"comment": "é" * 191}, (None, "é" * 191, None)),
        ({"comment": "é" * 192}, (None, "é" * 143 + "…", None)),
        ({"values": {"a": 1, "b": "x" * 300}}, (None, None, {"a": 1, "b": "run-log: cut, 302 bytes"})),
        ({"values": {f"{n}": n for n in range(99)}}, (None, None, {"run-log: cut": "99 keys"})),
    ],
    ids=lambda given: repr(given)[:40],
)
def test_a_long_answer_is_cut(answer: dict[str, Any], kept: tuple[Any, ...]) -> None:
    """A history keeps so many bytes of a choice, a comment and values, and shows that they were cut."""
    line = Transition.of(make_event(pause=PauseRequest(reason="why", **answer)))

    assert kept == (line.choice, line.comment, line.values)
    assert line == transition_from_text(transition_text(line, "digest"))


def test_positions_by_run_keep_their_order() -> None:
    """Events are grouped by workflow and run, each group in the order given."""
    events = [make_event(1), make_event(2, id="other"), make_event(3), make_event(4, workflow_id="w2")]

    assert by_run(events) == {("w1", "r1"): [0, 2], ("w1", "other"): [1], ("w2", "r1"): [3]}


def test_deltas_that_cancel_out_are_nothing() -> None:
    """A run that goes and comes back, or stays, changes no stats, and no status stays with a zero."""
    there = StatsDelta.between(RunStatus.RUNNING, RunStatus.SUCCESS)
    back = StatsDelta.between(RunStatus.SUCCESS, RunStatus.RUNNING)

    assert StatsDelta() == there + back == StatsDelta.between(RunStatus.PAUSED, RunStatus.PAUSED)
    assert not there + back


@pytest.mark.parametrize(
    "delta",
    [StatsDelta(total=1), StatsDelta(successful=-1), StatsDelta(by_status={RunStatus.FAILED: 1})],
    ids=["total", "successful", "by status"],
)
def test_each_figure_is_a_change_of_its_own(delta: StatsDelta) -> None:
    """A repair of one figure alone is something to write."""
    assert delta


def test_a_recount_counts_runs_and_successes() -> None:
    """A recount tells the runs, the successes, and the runs in each status."""
    counted = count_statuses([RunStatus.SUCCESS, RunStatus.SUCCESS, RunStatus.FAILED])
    by_status = {RunStatus.SUCCESS: 2, RunStatus.FAILED: 1}

    assert StatsDelta(total=3, successful=2, by_status=by_status) == counted


@pytest.mark.parametrize("first", [1, 1.0, True])
def test_steps_that_python_holds_to_be_equal_are_stored_alike_in_any_order(first: float) -> None:
    """One key, one version, and attributes that differ in their text alone: the same one of them stays."""
    one, *others = (
        Step(
            key="a", name="a", status=StepStatus.RUNNING, started_at=NOON, version=1, attributes={"n": value}
        )
        for value in (first, 1, 1.0, True)
    )
    texts = {step_text(joined_steps(order)[0]) for order in permutations([one, *others])}

    assert len(texts) == 1


def test_an_answer_that_beats_a_default_is_shown() -> None:
    """Somebody answered while the default was taken: the history has both. What repeats either does not."""
    pause = PauseRequest(reason="pay?", choices=("pay", "wait"), default_choice="wait")
    by_default = pause.model_copy(update={"answered_by": "default", "choice": "wait"})
    by_ann = pause.model_copy(update={"answered_by": "ann", "choice": "pay"})
    asked = make_event(1, status=RunStatus.PAUSED, pause=pause)
    default = make_event(2, status=RunStatus.RUNNING, pause=by_default).model_copy(update={"inferred": True})
    repeated = make_event(3, status=RunStatus.RUNNING, pause=by_default)
    answered = make_event(3, status=RunStatus.RUNNING, pause=by_ann)
    ended = make_event(4, status=RunStatus.SUCCESS, pause=by_ann)

    def shown(*events: RunEvent) -> list[str | None]:
        return [line.answered_by for line in annotated(fold(None, events).after.history)]

    assert [None, "default", "ann", None] == shown(asked, default, answered, ended)
    assert [None, "default", None] == shown(asked, default, repeated)
    assert [None, "ann", None] == shown(asked, answered, ended)
