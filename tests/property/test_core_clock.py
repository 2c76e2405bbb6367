from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from run_log.core.clock import HybridLogicalClock

from .core_strategies import examples

readings = st.integers(min_value=0, max_value=1_000)


@examples(100)
@given(st.lists(st.tuples(readings, st.none() | readings), min_size=1))
def test_readings_increase_past_everything_seen(steps: list[tuple[int, int | None]]) -> None:
    """Whatever the machine's clock does, a reading is past every one before, every observed one, and it."""
    machine = [0]
    clock = HybridLogicalClock(lambda: machine[0])
    past = -1
    for now, observed in steps:
        machine[0] = now
        if observed is not None:
            clock.observe(observed)
            past = max(past, observed)
        reading = clock.tick()

        assert past < reading
        assert now <= reading
        past = reading
