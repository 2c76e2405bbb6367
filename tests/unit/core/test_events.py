from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from run_log.core import InvalidArgumentError, InvalidRunError, RunEvent, RunStatus, Version, utc_now
from run_log.core.clock import MAX_HLC, HybridLogicalClock
from run_log.core.events import UNVERSIONED

from .builders import NOON, make_event, make_run, run_fields


def test_an_event_of_a_run_is_stamped_and_copied() -> None:
    """`from_run` stamps identity, version and time from what it is given, and keeps no part of the run."""
    run = make_run(result={"a": [1]})
    event = RunEvent.from_run(
        run, clock=HybridLogicalClock(lambda: 77), new_id=lambda: "e1", now=lambda: NOON, trace=("tp", "ts")
    )
    run.result["a"].append(2)

    assert Version(attempt=1, hlc=77, event_id="e1") == event.version
    assert (
        event.occurred_at,
        event.traceparent,
        event.tracestate,
        event.inferred,
    ) == (NOON, "tp", "ts", False)
    assert event.run.result == {"a": [1]}
    assert (event.key, event.status) == (("w1", "r1"), RunStatus.RUNNING)


def test_later_events_of_a_process_have_later_versions() -> None:
    """Without anything given, each event is another one and later than those before."""
    events = [RunEvent(run=make_run()) for _ in range(50)]

    assert sorted(events, key=lambda event: event.version) == events
    assert len({event.event_id for event in events}) == 50


@pytest.mark.parametrize("event_id", ["", " ", "a b", "é", "a\n", "x" * 129])
def test_an_identity_is_printable_ascii(event_id: str) -> None:
    """An event id that could not travel as an attribute, or is too long, is refused."""
    with pytest.raises(ValidationError, match="event_id"):
        RunEvent(event_id=event_id, run=make_run())


def test_a_bad_identity_source_is_an_invalid_run() -> None:
    """What the event model refuses comes as `InvalidRunError` with the run's id, not as pydantic's error."""
    with pytest.raises(InvalidRunError, match="'r1' cannot become an event"):
        RunEvent.from_run(make_run(), new_id=lambda: "two words")


def test_an_inferred_event_comes_just_after_its_source() -> None:
    """What is concluded from an event has its attempt and clock reading, and an id right behind."""
    source = make_event(3, hlc=10)
    inferred = source.infer(make_run(status=RunStatus.FAILED), now=lambda: NOON)

    assert Version(attempt=1, hlc=10, event_id="e003!") == inferred.version
    assert inferred.inferred
    assert RunStatus.FAILED is inferred.status


@pytest.mark.parametrize("event_id", ["e" * 127, "e" * 128, "~" * 128, "!" * 128])
def test_whatever_its_id_an_event_has_a_successor(event_id: str) -> None:
    """Two who conclude the same of an event make the same one, later, though its id has no room for more."""
    source = make_event(event_id=event_id, hlc=7)

    one, other = (source.infer(make_run(status=RunStatus.FAILED)) for _ in range(2))

    assert (one.version, True) == (other.version, one.inferred)
    assert source.version < one.version < one.infer(make_run()).version < make_event(hlc=8).version


def test_nothing_comes_after_the_last_version() -> None:
    """Where no clock reads later and no id is greater, nothing can be inferred, and it is said of what."""
    last = make_event(event_id="~" * 128, hlc=MAX_HLC - 1)

    with pytest.raises(InvalidRunError, match=r"nothing more can be inferred about .*r1"):
        last.infer(make_run(status=RunStatus.FAILED))


@pytest.mark.parametrize("change", [{"id": "other"}, {"workflow_id": "other"}, {"attempt": 2}])
def test_nothing_is_inferred_about_another_run(change: dict[str, object]) -> None:
    """An event only allows conclusions about its own run and attempt."""
    with pytest.raises(InvalidRunError, match="same run and attempt"):
        make_event().infer(run_fields(**change))


def test_now_is_utc() -> None:
    """The default wall clock is aware and in UTC."""
    before = datetime.now(UTC)
    now = utc_now()

    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC


def test_an_event_shares_nothing_with_the_run_it_is_given() -> None:
    """Changing a run after an event was made of it changes nothing in the event."""
    run = make_run(result={"a": {"b": 1}})
    event = RunEvent(run=run)

    run.result["a"]["b"] = 2
    run.status = RunStatus.FAILED

    assert {"a": {"b": 1}} == event.run.result
    assert RunStatus.FAILED is not event.run.status


@pytest.mark.parametrize(
    "version",
    [UNVERSIONED, Version(2**31 - 1, 2**62 - 1, "!" * 128), Version(1, 0, "~"), Version(1, 5, "a:b:1")],
)
def test_a_version_has_a_text(version: Version) -> None:
    """The text of a version names it again: of any event, and of a run stored without versions."""
    assert version == Version.from_text(version.text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "1:5", "::", ":5:e", "1::e", "1:5:", "1:2:", "2:0:"),
        *("0:5:e", "x:5:e", "1:x:e", "1.0:5:e", "1:1_0:e"),
        *("-1:5:e", "+1:5:e", "1:-5:e", "1:+5:e", "1:-0:", "1:-0:e"),
        *("01:5:e", "1:05:e", "1:00:e"),
        *(" 1:5:e", "1 :5:e", "1: 5:e", "1:5: e", "1:5:e ", "1:5:e\n", "1:5:a b", "1:5: ", "1:0:\n"),
        *("\uff11:5:e", "1:\u0665:e", "\u00b9:5:e", "1:5:\u00e9", "1:5:\x7f", "1:5:\ud800"),
        *(f"{2**31}:5:e", f"1:{2**62}:e", "9" * 5_000 + ":1:e", "1:" + "9" * 5_000 + ":e"),
        *("1:5:" + "e" * 129, "1:5:e:" + "\t"),
    ],
)
def test_what_is_no_version(text: str) -> None:
    """Any other text is refused: no part is empty, padded, signed, too large or of other characters."""
    with pytest.raises(InvalidArgumentError, match="is no version"):
        Version.from_text(text)
