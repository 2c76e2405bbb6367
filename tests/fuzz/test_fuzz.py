from __future__ import annotations

import pytest

from run_log.core import DeadLetterReason, Message

from .bodies import Bodies
from .pipes import EVENT, FuzzFailedError, run_bodies
from .readers import READERS, run_reader

pytestmark = pytest.mark.search

COUNT = 2_000
INPUTS = 10_000
CHUNK = 2_500
DECODED = {DeadLetterReason.UNDECODABLE, DeadLetterReason.INVALID_EVENT, DeadLetterReason.UNKNOWN_TYPE}


def test_whatever_comes_is_an_event_or_a_dead_letter() -> None:
    """Two thousand odd bodies, pulled, pushed and archived, end as events or dead letters, nothing else."""
    counts = run_bodies(range(COUNT), seed=11, count=COUNT)

    pulled = {what for what in counts if what.startswith("(all, pulled)")}
    assert COUNT == sum(counts[what] for what in pulled)
    assert {f"(all, pulled): {what}" for what in (EVENT, *DECODED)} <= pulled


@pytest.mark.parametrize("start", range(0, INPUTS, CHUNK))
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_of_foreign_bytes_gives_a_value_or_an_error_of_ours(reader: str, start: int) -> None:
    """Ten thousand inputs to each reader of foreign bytes end as a value or an error of ours."""
    counts = run_reader(reader, range(start, start + CHUNK), seed=12)

    assert counts.total() == CHUNK
    assert len(counts) > 1


def test_the_program_finds_what_is_no_answer() -> None:
    """A decoder that raises something else is found, and the body named by its number and its seed."""

    def forgetful(_message: Message) -> None:
        raise KeyError("run")

    with pytest.raises(FuzzFailedError, match="body 3 of seed 5"):
        run_bodies([3], seed=5, count=1, decode=forgetful)


def test_a_body_is_made_again() -> None:
    """The same seed and number make the same body."""
    first, second = (Bodies(seed=1, count=100) for _ in range(2))

    assert [first(number) for number in range(100)] == [second(number) for number in range(100)]
