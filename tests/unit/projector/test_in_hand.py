from __future__ import annotations

from run_log.projector.in_hand import GroupLimits, Progress, decoded_size
from run_log.testing import ManualClock


def test_room_is_reserved_while_bodies_come() -> None:
    """What is known of a body's size is reserved once, until it is there; alone it may have any size."""
    clock = ManualClock()
    progress = Progress(GroupLimits(data_bytes=100), now=clock.monotonic, utc_now=clock.now)

    with progress.reserving() as first, progress.reserving() as second:
        assert first(40)
        assert first(60)
        assert not second(41)
        assert second(40)
        assert not first(61)
    with progress.reserving() as alone:
        assert alone(1_000)
    token = progress.taken(None, 60)
    with progress.reserving() as beside:
        assert not beside(41)
        assert beside(40)
    progress.settled(token, returned=False)
    with progress.reserving() as alone:
        assert alone(1_000)


def test_what_is_forgotten_makes_room_once() -> None:
    """Decoded bodies count until they are forgotten, once, and what was never decoded does not count."""
    clock = ManualClock()
    body = b'{"a":1}'
    limits = GroupLimits(decoded_bytes=2 * decoded_size(body))
    progress = Progress(limits, now=clock.monotonic, utc_now=clock.now)

    full: list[bool] = []
    for token in (1, 2):
        assert progress.decode(token, body)
        full.append(progress.is_full)
    for token in (1, 1, 99):
        progress.forget(token)
    full.append(progress.is_full)
    assert progress.decode(3, body)
    full.append(progress.is_full)

    assert [False, True, False, True] == full
    assert not progress.decode(4, body)


def test_a_message_is_settled_once() -> None:
    """Whoever settles a message is told whether it was in hand until then; it makes room once."""
    clock = ManualClock()
    progress = Progress(GroupLimits(messages=2, data_bytes=9), now=clock.monotonic, utc_now=clock.now)
    tokens = [progress.taken(None, 5) for _ in range(3)]
    assert ((0, 0), True) == (progress.room_left, progress.is_full)

    settled = [progress.settled(token, returned=False) for token in (*tokens[:2], tokens[0], 99)]

    assert [True, True, False, False] == settled
    assert ((1, 4), False) == (progress.room_left, progress.is_full)
