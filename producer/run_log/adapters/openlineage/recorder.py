"""Emits what events of OpenLineage tell, and waits until it is delivered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from run_log.core import RunEvent, RunLogError, TransportUnavailableError
from run_log.core.logs import get_logger
from run_log.core.models import RunKey
from run_log.producer import Redaction, RunEventEmitter
from run_log.stores import RunLogReader

from .events import Told
from .runs import event_of, told_of

DELIVERY_SECONDS: Final = 3.0
"""How long an event may take to be delivered. With `READ_SECONDS` that is less than the official client waits
for an answer: 5 s."""

READ_SECONDS: Final = 1.0
"""How long reading what is known of a run may take."""

AT_ONCE: Final = 100
"""How many events of a batch are read and emitted together: an emitter's buffer holds more."""

MAX_REMEMBERED: Final = 2_000
"""How many runs are remembered, the last ones: a projector may not have come to their newest events yet."""

_logger: Final = get_logger("run_log.adapters")


class Recorder:
    """Records what events tell of runs.

    Args:
        emitter: Returns where events go.
        run_log: Returns where it is read what is known of a run.
        redaction: Replaces secrets in labels before they are joined with those in the run log.
    """

    def __init__(
        self,
        emitter: Callable[[], RunEventEmitter],
        run_log: Callable[[], RunLogReader],
        *,
        redaction: Redaction,
        delivery_seconds: float = DELIVERY_SECONDS,
    ) -> None:
        self._emitter = emitter
        self._run_log = run_log
        self._redaction = redaction
        self._delivery_seconds = delivery_seconds
        self._remembered: OrderedDict[RunKey, RunEvent] = OrderedDict()

    async def record(self, told: Sequence[Told]) -> None:
        """Return once everything that was *told* is delivered.

        Raises:
            TransportUnavailableError: Not all of it was delivered in time; part of it may be. Recording all
                of it again changes nothing.
        """
        for start in range(0, len(told), AT_ONCE):
            await self._record(told[start : start + AT_ONCE])

    async def _record(self, told: Sequence[Told]) -> None:
        keys = {each.key: None for each in told}
        stored = dict(zip(keys, await asyncio.gather(*map(self._read, keys)), strict=True))
        emitter = self._emitter()
        before = emitter.stats
        # Nothing is awaited from here on: what another request tells of the same run comes before or after.
        for each in told:
            for event in self._joined(each, stored[each.key]):
                emitter.emit(event)
        is_settled = await emitter.settled(self._delivery_seconds)
        after = emitter.stats
        # Which ones were dropped is not known. Events of other requests are sent once more, which is safe.
        is_lost = after.dropped > before.dropped or after.aside > before.aside
        if is_settled and not is_lost and not emitter.is_failing:
            return
        for key in keys:
            self._remembered.pop(key, None)
        raise TransportUnavailableError(
            "the event was not delivered in time; send it again: an event counts only once"
        )

    def _joined(self, told: Told, stored: RunEvent | None) -> list[RunEvent]:
        self._redaction.apply(told.labels)
        known = [event for event in (stored, self._remembered.pop(told.key, None)) if event is not None]
        self._remembered[told.key], events = told_of(known, told)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return events

    async def _read(self, key: RunKey) -> RunEvent | None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                record = await self._run_log().get_record(*key)
        except (RunLogError, TimeoutError) as error:
            # The event is worth more than what it adds to.
            why = str(error) or f"no answer within {READ_SECONDS:g} s"
            _logger.warning("run_log_openlineage_not_read", workflow_id=key[0], run_id=key[1], error=why)
            return None
        return None if record is None else event_of(record)
