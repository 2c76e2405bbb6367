"""Of any number of answers to one pause at once, by any services of any store, exactly one succeeds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from run_log.core import AlreadyAnsweredError, RunStatus, WorkflowRun
from run_log.stores import RunLogService
from run_log.testing import FirestoreEmulator, a_run, an_event

from .core_strategies import examples, scaled
from .store_folds import OpenStores, memory_stores, sqlite_stores, use_firestore

pytestmark = pytest.mark.search


class Try(NamedTuple):
    """One answer: by which service, whether it is a rejection, how often the loop turns before it begins."""

    service: int
    is_rejection: bool
    turns: int


tries = st.lists(st.builds(Try, st.integers(0, 2), st.booleans(), st.integers(0, 5)), min_size=1, max_size=6)


async def answer(version: str, services: Sequence[RunLogService], one: Try, name: str) -> WorkflowRun | None:
    """Return what *one* makes of the run; None where another answer was first."""
    service = services[one.service % len(services)]
    for _ in range(one.turns):
        await asyncio.sleep(0)
    try:
        call = service.reject if one.is_rejection else service.resume
        return await call("w", "r", answered_by=name, if_version=version)
    except AlreadyAnsweredError:
        return None


async def answered(open_stores: OpenStores, drawn: Sequence[Try], *, is_seen: bool) -> None:
    """Answer one pause in all of the ways of *drawn* at once, and check that one of them holds."""
    async with open_stores() as services:
        await services[0].apply([an_event(a_run(workflow_id="w", id="r", status=RunStatus.RUNNING))])
        for service in services if is_seen else ():
            # From now on each remembers the run as it was before it paused.
            await service.apply([an_event(a_run(workflow_id="w", id="r", status=RunStatus.RUNNING))])
        pause = an_event(a_run(workflow_id="w", id="r", status=RunStatus.PAUSED))
        await services[0].apply([pause])
        done = await asyncio.gather(
            *(answer(pause.version.text, services, one, f"a{number}") for number, one in enumerate(drawn))
        )
        stored = await services[-1].get_run("w", "r")
        history = await services[-1].get_history("w", "r")

    assert [stored] == [run for run in done if run is not None]
    assert stored is not None
    assert stored.pause is not None
    assert [pause.version] == [line.version for line in history if line.status is RunStatus.PAUSED]
    assert [stored.pause.answered_by] == [line.answered_by for line in history[-1:]]
    assert pause.version == history[-2].version


@pytest.mark.parametrize("open_stores", [memory_stores, sqlite_stores], ids=["memory", "sqlite"])
@examples(40)
@given(drawn=tries, is_seen=st.booleans())
def test_one_answer_succeeds(open_stores: OpenStores, drawn: list[Try], is_seen: bool) -> None:  # noqa: FBT001 - drawn
    """Exactly one of any answers to one pause succeeds, and it is the run's state and history."""
    asyncio.run(answered(open_stores, drawn, is_seen=is_seen))


@pytest.mark.emulator
@settings(
    max_examples=scaled(10),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(drawn=tries, is_seen=st.booleans())
def test_one_answer_succeeds_in_firestore(
    drawn: list[Try],
    is_seen: bool,  # noqa: FBT001 - drawn
    firestore_emulator: FirestoreEmulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In Firestore, too, whatever each service remembers of the run."""
    asyncio.run(answered(use_firestore(firestore_emulator, monkeypatch), drawn, is_seen=is_seen))
