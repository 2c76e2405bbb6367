"""What a pipeline is to do, and what its workers do, without Beam: read events, join runs, write them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import BinaryIO, Final, NamedTuple, Protocol

from pydantic import TypeAdapter

from run_log.core import (
    DeadLetterReason,
    EventDecodeError,
    Message,
    Outcome,
    RunEvent,
    Settings,
    Transition,
    decode_event,
    encode_event,
    utc_now,
)
from run_log.core.law import FoldedRun, fold
from run_log.core.payload import decode_json, encode_json
from run_log.core.steps import step_from_text, step_text
from run_log.core.wire import check_stamp
from run_log.projector.archive import read_records
from run_log.projector.rebuild.merging import MergingProjector
from run_log.projector.rebuild.sources import rebuilding
from run_log.projector.rebuild.work import Reject


def read_events(
    name: str, file: BinaryIO, *, now: Callable[[], datetime] = utc_now
) -> Iterator[RunEvent | str]:
    """Yield the events of a file in order; for each record that is not an event, the line for the rejects.

    Raises:
        OSError: It cannot be read now.
        ConfigurationError: It is Avro, and fastavro is not installed.
    """
    for record in read_records(file):
        place, data, attributes = f"{name}:{record.number}", record.data, record.attributes
        if record.fault is not None:
            yield Reject(place, DeadLetterReason.UNDECODABLE, record.fault, data).line()
            continue
        try:
            event = decode_event(Message(data=data, attributes=attributes))
            check_stamp(event, now())
        except EventDecodeError as error:
            yield Reject(place, DeadLetterReason(error.reason), str(error), data, attributes).line()
        else:
            yield event


_history: Final = TypeAdapter(tuple[Transition, ...])


def folded(event: RunEvent) -> FoldedRun:
    """Return the run as *event* alone makes it."""
    history = (Transition.of(event),) if event.is_transition else ()
    return FoldedRun(event=event, history=history, steps=event.steps)


def joined(runs: Sequence[FoldedRun]) -> FoldedRun:
    """Join parts of one run; there has to be at least one.

    Like the merge law, this is commutative and associative, and repeats change nothing. So it does not matter
    which worker has seen which events, how often, and in which order.
    """
    earlier = [transition for run in runs for transition in run.history]
    steps = [step for run in runs for step in run.steps]
    change = fold(None, [run.event for run in runs], earlier=earlier, earlier_steps=steps)
    if change.winner is None:
        raise ValueError("joined() needs at least one run")
    return FoldedRun(event=change.winner, history=change.after.history, steps=change.after.steps)


def encode_folded(run: FoldedRun) -> bytes:
    """Return *run* as bytes for another worker: the body of its event, then its history and its steps."""
    steps = encode_json([step_text(step) for step in run.steps]).encode()
    return b"\n".join((encode_event(run.event).data, _history.dump_json(run.history), steps))


def decode_folded(data: bytes) -> FoldedRun:
    """Return the run that `encode_folded` was given, without its trace, which no projection keeps."""
    body, history, steps = data.split(b"\n")
    return FoldedRun(
        event=decode_event(Message(data=body)),
        history=_history.validate_json(history),
        steps=tuple(map(step_from_text, decode_json(steps.decode()))),
    )


MAX_RUNS: Final = 500
"""Most runs written together. A commit holds as many."""

MAX_BYTES: Final = 3 * 2**20
"""Most bytes of them, roughly. A commit holds as many."""


class ClosableStore(Protocol):
    """A projection that folded runs can be merged into. It lasts as long as a worker."""

    async def merge(self, runs: Sequence[FoldedRun]) -> list[Outcome]:
        """Merge *runs*, each given once. See `ProjectionStore.apply`."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


OpenStore = Callable[[], ClosableStore]


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamRebuild:
    """What a pipeline folds, and where it writes."""

    files: tuple[str, ...]
    """Files or patterns, as Beam's file systems take them. Hidden files are left out."""
    settings: Settings
    """The project, the database, the number of stats documents and the retention are taken from here."""
    into: str
    """The root collection to write into."""
    rejects: str
    """Prefix of the files that hold the rejects."""
    open_store: OpenStore | None = None
    """Opens the store; None for the settings' Firestore."""

    def store(self) -> OpenStore:
        """Return a function that opens the store, on any worker."""
        from run_log.stores import FirestoreRunLogService  # noqa: PLC0415 - options are read without

        return self.open_store or partial(
            FirestoreRunLogService.from_settings, rebuilding(self.settings, self.into)
        )


class Written(NamedTuple):
    """What became of runs that were written together."""

    runs: int
    """Runs that are durable."""
    rejects: Sequence[str]
    """The line of each run that the store refused for good."""


class RunWriter:
    """Writes runs into a store, as many together as a commit holds. Not thread-safe.

    Writing a run again changes nothing, even if another writer does so at the same time.
    """

    def __init__(self, open_store: OpenStore) -> None:
        self._store = open_store()
        self._projector = MergingProjector(self._store.merge)
        self._loop = asyncio.Runner()
        self.begin()

    def begin(self) -> None:
        """Forget runs that wait to be written: after a failure, Beam gives all runs of the bundle again."""
        self._waiting: list[FoldedRun] = []
        self._size = 0

    def add(self, run: FoldedRun) -> Written | None:
        """Add *run*, and write all that wait once they are enough; return None until then.

        Raises:
            RunLogError: See `write`.
        """
        size = len(encode_folded(run))
        written = self.write() if self._waiting and self._size + size > MAX_BYTES else None
        self._waiting.append(run)
        self._size += size
        return self.write() if len(self._waiting) == MAX_RUNS else written

    def write(self) -> Written:
        """Write all runs that wait.

        Raises:
            StoreUnavailableError: The store does not answer in bounded time.
            ConfigurationError: The store does not exist, or denies access.
        """
        runs = self._waiting
        self.begin()
        results = self._loop.run(self._projector.merge(runs))
        rejects = [result.line() for result in results if isinstance(result, Reject)]
        return Written(len(runs) - len(rejects), rejects)

    def close(self) -> None:
        """Close the store."""
        self._loop.run(self._store.close())
        self._loop.close()
