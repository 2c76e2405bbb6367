from __future__ import annotations

from run_log.projector.in_hand import GroupLimits, Progress
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
