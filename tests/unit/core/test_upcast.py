from __future__ import annotations

import pytest

from run_log.core import EventDecodeError, RunStatus, decode_event, encode_event
from run_log.core.clock import micros_of

from .builders import NOON, message, v0_body

LATER = "2026-03-04T12:00:01+00:00"


def test_a_bare_run_is_an_event() -> None:
    """A platform's dump of a run, the first wire form, reads as an event of today."""
    event = decode_event(message(v0_body()))

    assert (event.key, event.status, event.occurred_at) == (("w1", "r1"), RunStatus.RUNNING, NOON)
    assert not event.inferred
    assert event == decode_event(encode_event(event))


def test_the_same_dump_twice_is_the_same_event() -> None:
    """Identity and version come from the content, whatever the order of its keys; another has others."""
    dump = v0_body(result={"a": 1, "b": 2})
    turned = dict(reversed(dump.items()))

    assert decode_event(message(dump)) == decode_event(message(turned))
    assert decode_event(message(dump)).event_id != decode_event(message(v0_body())).event_id


def test_a_life_in_one_moment_is_in_order() -> None:
    """Of one moment, the later stage of a run's life is the later version, the same one for ever."""
    stages = ["pending", "running", "paused", "success"]
    versions = [decode_event(message(v0_body(status=status))).version for status in stages]

    assert [0, 1, 2, 3] == [version.hlc - micros_of(NOON) for version in versions]


@pytest.mark.parametrize("status", ["success", "failed", "skipped"])
@pytest.mark.parametrize("completed", [LATER, "2026-03-04T12:00:00Z", None])
def test_an_end_is_later_than_its_start(status: str, completed: str | None) -> None:
    """An ended run's dump beats the same run's running dump, also without the moment of its end."""
    running = decode_event(message(v0_body()))
    ended = decode_event(message(v0_body(status=status, completed_at=completed)))

    assert ended.version > running.version
    assert (1_000_003 if completed == LATER else 3) == ended.hlc - micros_of(NOON)


JUNK: dict[str, list[object]] = {
    "started_at": [
        *(None, "", 1_772_625_600, "yesterday", [], "2026-03-04T12:00:00", "1960-01-01T00:00:00Z"),
        *("0001-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
    ],
    "completed_at": ["soon"],
    "status": [[], {}, None],
    "id": [None],
    "trigger_data": [[1]],
    "duration_ms": ["long"],
}


@pytest.mark.parametrize("changes", [{name: junk} for name in JUNK for junk in JUNK[name]], ids=repr)
def test_junk_in_a_bare_run_is_refused(changes: dict[str, object]) -> None:
    """A bare run that cannot be read raises `EventDecodeError` as an invalid event, nothing else."""
    with pytest.raises(EventDecodeError) as caught:
        decode_event(message(v0_body(**changes)))

    assert caught.value.reason == "invalid_event"
