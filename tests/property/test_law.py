from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_log.core import InvalidArgumentError, Outcome, RunEvent, RunStatus, Transition, Version
from run_log.core.history import MAX_HISTORY, mark_anomalies, newest
from run_log.core.law import FoldedRun, RunHead, by_run, fold, newest_event
from run_log.core.models import RunKey
from run_log.core.stats import StatsDelta, count_statuses

from .core_strategies import clashing_events, deliveries, examples, project, small_event, small_events

versions = st.builds(
    Version,
    attempt=st.integers(min_value=1, max_value=3),
    hlc=st.integers(min_value=0, max_value=3),
    event_id=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=3),
)
near_versions = st.from_regex(r"[0-9+-]{0,3}:[ 0-9+-]{0,3}:[ -~]{0,3}\n?", fullmatch=True)

# Honest publishers' events, and those of which many share their id, or their version.
facts = small_events() | clashing_events()
one_runs = small_events(runs=1) | clashing_events(runs=1)


@examples(100)
@given(st.data())
def test_order_repeats_and_batches_do_not_matter(data: st.DataObject) -> None:
    """Any order, repeats and batches of the same events end in the same heads, payloads and stats.

    Each head is the event of greatest version, and its history is every version.
    """
    events = data.draw(small_events())
    _check_that_they_end_the_same(events, data.draw(deliveries(events)))


@examples(150)
@given(st.data())
def test_one_id_for_two_events_ends_the_same(data: st.DataObject) -> None:
    """Different events under one id, or in one version, end the same in any order, repeats and batches."""
    events = data.draw(clashing_events())
    _check_that_they_end_the_same(events, data.draw(deliveries(events)))


def _check_that_they_end_the_same(events: list[RunEvent], delivered: list[list[RunEvent]]) -> None:
    heads, stats = project(delivered)
    stored = _stored(delivered)

    assert (heads, stats) == project([events])
    assert stored == _stored([events])
    for key, head in heads.items():
        own = [event for event in events if event.key == key]
        assert sorted({event.version for event in own}) == [line.version for line in head.history]
        assert head.history[-1].status is head.status is newest_event(own).status
        assert newest_event(own) == stored[key]


@examples(100)
@given(st.data())
def test_summed_deltas_equal_a_recount(data: st.DataObject) -> None:
    """After each batch, the deltas so far add up to a recount over the runs, for each workflow."""
    delivered = data.draw(deliveries(data.draw(facts)))
    for count in range(1, len(delivered) + 1):
        heads, stats = project(delivered[:count])
        assert stats == {
            workflow: count_statuses(head.status for key, head in heads.items() if key[0] == workflow)
            for workflow in stats
        }


@pytest.mark.search
@examples(200)
@given(st.data())
def test_folded_runs_merge_as_their_events_do(data: st.DataObject) -> None:
    """Heads of any parts of a run's events, merged in any order, with repeats, are the head of all."""
    events = data.draw(one_runs)
    merged = [_folded(part) for part in data.draw(deliveries(events)) if part]
    repeats = data.draw(st.lists(st.sampled_from(merged), max_size=3))

    head, delta = _merged(data.draw(st.permutations([*merged, *repeats])))

    assert fold(None, events).after == head
    assert count_statuses([head.status]) == delta


def _stored(batches: Sequence[Sequence[RunEvent]]) -> dict[RunKey, RunEvent]:
    """Return the event whose state each run has, as a store that writes the winners holds it."""
    heads: dict[RunKey, RunHead] = {}
    stored: dict[RunKey, RunEvent] = {}
    for batch in batches:
        for key, positions in by_run(batch).items():
            change = fold(heads.get(key), [batch[position] for position in positions])
            heads[key] = change.after
            if change.winner is not None:
                stored[key] = change.winner
    return stored


@examples(200)
@given(st.data())
def test_a_second_delivery_changes_nothing(data: st.DataObject) -> None:
    """Folding a run's events once more changes neither state, history nor stats, and each is a duplicate."""
    events = data.draw(one_runs)
    before = fold(None, events).after
    change = fold(before, data.draw(st.permutations(events)))

    assert before == change.after
    assert [Outcome.DUPLICATE] * len(events) == list(change.outcomes)
    assert (change.winner, change.added) == (None, ())
    assert not change.delta


@pytest.mark.search
@examples(100)
@given(small_events(runs=1), small_events(runs=1))
def test_a_fold_of_a_fold_is_a_fold_of_all(first: list[RunEvent], second: list[RunEvent]) -> None:
    """Folding a second batch onto the first one's head equals folding both at once."""
    known = {event.event_id for event in first}
    second = [event for event in second if event.event_id not in known]
    head = fold(None, first).after
    stepwise = fold(head, second).after if second else head

    assert fold(None, [*first, *second]).after == stepwise


@pytest.mark.search
@examples(100)
@given(small_events(runs=1), small_events(runs=1), small_events(runs=1))
def test_merging_folded_runs_is_associative(
    first: list[RunEvent], second: list[RunEvent], third: list[RunEvent]
) -> None:
    """A merge of merges is the merge of all, whichever were merged first: also of runs merged elsewhere."""
    events = {event.event_id: event for event in (*third, *second, *first)}
    a, b, c = ([events[event.event_id] for event in part] for part in (first, second, third))
    ab_elsewhere = FoldedRun(
        event=newest_event([*a, *b]), history=_merged([_folded(a), _folded(b)])[0].history
    )

    assert _merged([_folded(a), _folded(b), _folded(c)]) == _merged([_folded(c), ab_elsewhere])


def test_a_merge_keeps_the_newest_of_both_histories() -> None:
    """Of two long histories the merged one has the newest, wherever they came from."""
    events = [small_event(number, hlc=number) for number in range(2 * MAX_HISTORY)]

    head, _ = _merged([_folded(events[1::2]), _folded(events[::2])])

    assert fold(None, events).after.history == head.history


def _folded(events: Sequence[RunEvent]) -> FoldedRun:
    return FoldedRun(event=newest_event(events), history=fold(None, events).after.history)


def _merged(runs: Sequence[FoldedRun]) -> tuple[RunHead, StatsDelta]:
    """Return the head and the stats of one run, merged from *runs*."""
    head, delta = None, StatsDelta()
    for run in runs:
        change = fold(head, [run.event], earlier=run.history)
        head, delta = change.after, delta + change.delta
    assert head is not None
    return head, delta


@examples(100)
@given(st.data())
def test_each_event_has_one_outcome_and_only_repeats_are_duplicates(data: st.DataObject) -> None:
    """There is one outcome for each event in order: duplicate where it came before, else applied or stale."""
    batches = data.draw(deliveries(data.draw(small_events(runs=1))))
    head, seen, greatest = None, set[str](), None
    for batch in filter(None, batches):
        change = fold(head, batch)
        expected: list[Outcome] = []
        for event in batch:
            if event.event_id in seen:
                expected.append(Outcome.DUPLICATE)
            elif greatest is None or event.version > greatest:
                expected.append(Outcome.APPLIED)
                greatest = event.version
            else:
                expected.append(Outcome.STALE)
            seen.add(event.event_id)
        head = change.after

        assert expected == list(change.outcomes)


@examples(100)
@given(st.data())
def test_added_transitions_accumulate_to_the_history(data: st.DataObject) -> None:
    """A store that only ever adds what `added` says holds the whole history."""
    head, kept = None, list[Transition]()
    for batch in filter(None, data.draw(deliveries(data.draw(small_events(runs=1))))):
        change = fold(head, batch)
        head = change.after
        kept.extend(change.added)

    assert head is not None
    assert newest(reversed(kept)) == head.history


@examples(40)
@given(
    seed=st.integers(min_value=0, max_value=2**32),
    count=st.integers(min_value=MAX_HISTORY + 1, max_value=MAX_HISTORY + 25),
    batch=st.integers(min_value=1, max_value=40),
)
def test_the_newest_fifty_are_kept_whatever_the_order(seed: int, count: int, batch: int) -> None:
    """Of more than fifty transitions the fifty newest stay, in any order, any batches, with repeats."""
    chance = random.Random(seed)
    events = [
        small_event(
            number,
            attempt=chance.randint(1, 2),
            hlc=chance.randint(0, 30),
            status=chance.choice(list(RunStatus)),
        )
        for number in range(count)
    ]
    order = [*events, *chance.sample(events, 10)]
    chance.shuffle(order)
    heads, stats = project([order[start : start + batch] for start in range(0, len(order), batch)])
    head = heads[events[0].key]

    assert sorted(event.version for event in events)[-MAX_HISTORY:] == [line.version for line in head.history]
    assert newest_event(events).status is head.status
    assert {"workflow-0": count_statuses([head.status])} == stats


@examples(100)
@given(small_events(runs=1))
def test_marking_is_idempotent_and_changes_nothing_else(events: list[RunEvent]) -> None:
    """Marking marked history again changes nothing, and a mark changes neither version nor status."""
    history = fold(None, events).after.history
    marked = mark_anomalies(history)

    assert marked == mark_anomalies(marked)
    assert history == tuple(replace(line, anomaly=False) for line in marked)


@examples(100)
@given(
    attempts=st.integers(min_value=0, max_value=2),
    ticks=st.integers(min_value=0, max_value=3),
    number=st.integers(min_value=0, max_value=999).filter(lambda number: number != 500),
)
def test_an_inferred_event_lies_between_its_source_and_any_later_event(
    attempts: int, ticks: int, number: int
) -> None:
    """An inferred event beats what it was inferred from, and loses to every real event after that."""
    source = small_event(500, hlc=5)
    inferred = source.infer(source.run.model_copy(update={"status": RunStatus.FAILED}))
    real = small_event(number, attempt=1 + attempts, hlc=5 + ticks, status=RunStatus.SUCCESS)
    expected = real if real.version > source.version else inferred

    assert expected.version == fold(None, [real, inferred, source]).after.version


@examples(100)
@given(st.data())
def test_two_observers_infer_one_event(data: st.DataObject) -> None:
    """Two observers who conclude the same from the same event make one transition, whoever comes first."""
    source = data.draw(small_events(runs=1, max_size=1))[0]
    dead = source.run.model_copy(update={"status": RunStatus.FAILED})
    first, second = source.infer(dead), source.infer(dead)
    batches = data.draw(deliveries([source, first, second]))
    heads, _ = project(batches)

    assert first.version == second.version
    assert [source.version, first.version] == [line.version for line in heads[source.key].history]


@examples(100)
@given(versions, versions)
def test_nothing_lies_between_a_version_and_its_successor(one: Version, other: Version) -> None:
    """Every version later than another is also later than that one's successor, or is the successor."""
    assert (other > one) == (other >= one.successor)


@examples(300)
@given(versions | near_versions)
def test_a_version_has_one_text(given_: Version | str) -> None:
    """Every version is read from its text, and whatever is read as a version is its text."""
    text = given_ if isinstance(given_, str) else given_.text
    try:
        read = Version.from_text(text)
    except InvalidArgumentError:
        assert isinstance(given_, str)
        return

    assert text == read.text
    assert given_ in {read, read.text}
