"""Bugs, planted to see that the simulation finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pytest

from run_log.core import Outcome, ReceivedMessage, RunEvent, StoreUnavailableError, Transition, Version, law
from run_log.core.counters import Horizon
from run_log.core.law import RunChange
from run_log.core.models import RunKey
from run_log.core.stats import StatsDelta
from run_log.core.steps import Step, joined_steps
from run_log.stores.committing.commits import Commit, KnownRun, RunBatch, StatsWrite
from run_log.stores.committing.committer import Committer

from .broker import SimulatedSource
from .documents import TODAY, SimulatedDocuments


class AcknowledgesFirst(SimulatedSource):
    """Acknowledges what it pulls before it is projected."""

    def __init__(self, source: SimulatedSource) -> None:
        self._source = source

    async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage]:
        """See `MessageSource.pull`."""
        messages = await self._source.pull(max_messages, wait=wait) or []
        await self._source.acknowledge([message.ack_id for message in messages])
        return messages

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.acknowledge`."""

    async def release(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.release`."""

    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """See `MessageSource.extend`."""


class CountsDuplicates(Committer):
    """Counts a run again when an event of it comes again."""

    async def _write(
        self,
        runs: Mapping[RunKey, RunBatch],
        changes: Mapping[RunKey, RunChange],
        known: Mapping[RunKey, KnownRun],
        horizon: Horizon,
    ) -> None:
        await super()._write(runs, changes, known, horizon)
        again = [key for key, change in changes.items() if not change.added]
        once_more = StatsDelta(total=1)
        stats = [StatsWrite(workflow_id=key[0], shard=0, delta=once_more, as_of=TODAY) for key in again]
        if stats:
            await self._documents.commit(Commit(runs=[], stats=stats, announced={}))


class _Documents(SimulatedDocuments):
    def __init__(self, documents: SimulatedDocuments) -> None:
        vars(self).update(vars(documents))
        self._documents = documents


class LeavesOutPreconditions(_Documents):
    """Writes whatever it has, whatever is there."""

    async def commit(self, commit: Commit, *, checks_preconditions: bool = True) -> Sequence[Any]:
        """See `ProjectionDocuments.commit`."""
        return await self._documents.commit(commit, checks_preconditions=not checks_preconditions)


class RetriesBlindly(_Documents):
    """Takes a commit without an answer for one that was not made."""

    async def commit(self, commit: Commit, *, checks_preconditions: bool = True) -> Sequence[Any]:
        """See `ProjectionDocuments.commit`."""
        try:
            return await self._documents.commit(commit, checks_preconditions=checks_preconditions)
        except StoreUnavailableError:
            return await self._documents.commit(commit, checks_preconditions=False)


def plant_late_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an event win over one of the same attempt and clock reading, by coming later."""

    def outcome(
        newest: Version | None, history: Sequence[Transition], transition: Transition, **_kind: bool
    ) -> Outcome | None:
        version = transition.version
        if newest is None:
            return Outcome.APPLIED
        if any(line.version == version for line in history):
            return Outcome.DUPLICATE
        return Outcome.APPLIED if newest[:2] <= version[:2] else Outcome.STALE

    monkeypatch.setattr("run_log.core.law._outcome", outcome)


def plant_bare_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take two events for one where their ids are the same, whatever their versions and what they say."""
    outcome = law._outcome  # pyright: ignore[reportPrivateUsage]

    def by_id(
        newest: Version | None, history: Sequence[Transition], transition: Transition, **kind: bool
    ) -> Outcome | None:
        if any(line.version.event_id == transition.version.event_id for line in history):
            return Outcome.DUPLICATE
        return outcome(newest, history, transition, **kind)

    monkeypatch.setattr(law, "_outcome", by_id)


def plant_replaced_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the steps of an event take the place of those that are known."""

    def replaced(known: Sequence[Step], *more: Sequence[Step]) -> tuple[Step, ...]:
        return joined_steps(more[-1] if more else known)

    monkeypatch.setattr(law, "joined_steps", replaced)


def plant_any_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take events however far ahead they are stamped."""

    def take(_event: RunEvent, _moment: datetime) -> None:
        """See `check_stamp`."""

    monkeypatch.setattr("run_log.projector.group_commit.check_stamp", take)
