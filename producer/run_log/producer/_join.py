"""Steps for a run that another block, or another process, records."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from run_log.core import RunStatus, TriggerType, utc_now
from run_log.core.ids import as_text, bounded_id, id_text
from run_log.core.models import validated
from run_log.core.nearest import Contained

from ._capture import Checked
from ._emitter import RunEventEmitter, default_emitter
from ._steps import Pulse, StepBook, StepScope


class JoinedRun:
    """A run that another block, or another process, records; only steps are added to it.

    Attributes:
        workflow_id: The run's workflow.
        run_id: The run's id.
    """

    def __init__(self, workflow_id: str, run_id: str, emitter: RunEventEmitter) -> None:
        self.workflow_id: str = bounded_id(id_text(workflow_id) or as_text(workflow_id))
        self.run_id: str = bounded_id(id_text(run_id) or as_text(run_id))
        self._emitter = emitter
        self._pulse = Pulse(emitter, self._say)
        self._started_at = utc_now()
        self._book = StepBook(tick=self._tick, now=utc_now, told=self._pulse.tell)

    def step(
        self,
        name: str,
        *,
        key: str | None = None,
        attempt: int | None = None,
        started_at: datetime | None = None,
    ) -> StepScope:
        """Record a block as a step of the run; see `RunHandle.step`.

        Args:
            name: What people call it.
            key: What tells it from the run's other steps, also in another process.
            attempt: Which try of it this is, from 1, where a scheduler counts them; None counts those of
                this process.
            started_at: When this try of it started, where a scheduler knows; None for when the block begins.
        """
        return StepScope(self._book, name, key, attempt, started_at)

    def __enter__(self) -> Self:
        """Add steps to the run from now on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Emit what is not emitted yet. An exception goes on."""
        with Contained():
            self._pulse.begin()
            self._say(is_due=True)

    async def __aenter__(self) -> Self:
        """Add steps to the run from now on."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do what `__exit__` does: it never waits."""
        self.__exit__()

    def _tick(self) -> int:
        return self._emitter.tick((self.workflow_id, self.run_id))

    def _say(self, *, is_due: bool) -> bool:
        if not (is_due and self._book):
            return False
        # Older than all that the run says itself: where its own states are known, only the steps are news.
        state = {
            "workflow_id": self.workflow_id,
            "id": self.run_id,
            "status": RunStatus.RUNNING,
            "trigger_type": TriggerType.MANUAL,
            "started_at": self._started_at,
        }
        said: object = state  # no run, where an id is empty: the emitter counts it and logs why
        with Contained():
            said = Checked(validated(state), self._book.all(self._tick()), hlc=0)
        self._emitter.emit(said)
        return True


def join_run(workflow_id: str, run_id: str, *, emitter: RunEventEmitter | None = None) -> JoinedRun:
    """Add steps to a run that is recorded elsewhere, by ``with`` or ``async with``. Nothing is read.

    What the run itself says stays as it is, whatever the order in which the two arrive.

    Args:
        workflow_id: The run's workflow.
        run_id: The run's id.
        emitter: Where steps go; None takes `default_emitter`.
    """
    return JoinedRun(workflow_id, run_id, default_emitter() if emitter is None else emitter)
