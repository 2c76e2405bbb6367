"""A world of projectors, a broker and a store, driven by a seed; what must never happen is checked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from run_log.core import DeadLetterReason, Message, RunEvent
from run_log.projector import GroupLimits, MessageSource, Projector, PullLimits, PullWorker
from run_log.projector.pubsub import PubSubDeadLetters
from run_log.stores.committing.commits import ProjectionDocuments
from run_log.stores.committing.committer import Committer
from run_log.stores.firestore.client import Patience
from run_log.stores.retention import Retention
from run_log.stores.stored.writing import run_fields

from .broker import Broker, SimulatedLetters, SimulatedSource
from .documents import KEPT_DAYS, TODAY, DocumentStore, SimulatedDocuments
from .loop import VirtualLoop
from .process import Process
from .record import Record, ViolationError
from .workload import Workload, make_workload

PATIENCE_SECONDS: Final = 900.0
"""Virtual seconds within which all is projected once nothing fails any more."""
STUCK_SECONDS: Final = 300.0

Opens = Callable[[SimulatedSource], MessageSource]
Stores = Callable[[SimulatedDocuments], ProjectionDocuments]


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What projectors are made of, so that a test can build in a bug."""

    source: Opens = lambda source: source
    documents: Stores = lambda documents: documents
    committer: type[Committer] = Committer


SOUND: Final = Build()
"""What they are made of where no bug is planted."""


class World:
    """One schedule."""

    def __init__(self, seed: int, build: Build = SOUND) -> None:
        self._loop = VirtualLoop()
        self._build = build
        self._chance = random.Random(seed)
        self.record = Record(self._loop.time)
        self._workload: Workload = make_workload(self._chance)
        self._store = DocumentStore(self.record)
        self._broker = Broker(self._chance, self.record, self._loop.time, self._check_acknowledged)
        self._letters: list[tuple[Message, DeadLetterReason]] = []
        self._ports: list[SimulatedSource | SimulatedDocuments | SimulatedLetters] = []
        self._running: dict[Process, asyncio.Task[object]] = {}
        self._faults = self._chance.choice((0.0, 0.1, 0.3))
        self._broker.duplicates = self._chance.choice((0.0, 0.02))
        self._shards = self._chance.choice((1, 1, 3))
        self._retention = Retention.of_days(KEPT_DAYS)
        self._started = 0
        self._failures: list[BaseException] = []
        self._loop.set_exception_handler(self._on_failure)

    def run(self) -> None:
        """Run the schedule to its end.

        Raises:
            ViolationError: Something happened that must not.
        """
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._live())
            finally:
                for process in self._running:
                    process.crash()

    async def _live(self) -> None:
        await self._begin()
        publishing = asyncio.create_task(self._publish())
        for _ in range(self._chance.randint(1, 3)):
            self._start()
        for _ in range(self._chance.randint(0, 6)):
            await asyncio.sleep(self._chance.uniform(0, 8))
            self._disturb()
            self._store.delete_expired(self._chance)
        await publishing
        self._heal()
        deadline = self._loop.time() + PATIENCE_SECONDS
        while self._broker.backlog and self._loop.time() < deadline and not self._failures:  # noqa: ASYNC110
            await asyncio.sleep(1)
        self._assert(not self._broker.backlog, f"{self._broker.backlog} messages are still there")
        processes = list(self._running.items())
        for process, _ in processes:
            process.stop.set()
        for process, running in processes:
            await self._ended(process, running)
        self._check_end()

    async def _begin(self) -> None:
        """Store what was there before, which has expired by now."""
        documents = SimulatedDocuments(
            self._store, Process("before", self._chance), self._chance, self.record
        )
        committer = Committer(documents, patience=Patience(), wall_now=lambda: TODAY)
        await committer.apply(self._workload.before)
        self._store.expire()

    async def _publish(self) -> None:
        for message in self._workload.messages:
            self._broker.publish(message)
            await asyncio.sleep(self._chance.choice((0.0, 0.0, self._chance.uniform(0, 2))))

    def _start(self) -> None:
        self._started += 1
        process = Process(f"projector-{self._started}", self._chance)
        source = SimulatedSource(self._broker, process, self._chance)
        documents = SimulatedDocuments(self._store, process, self._chance, self.record)
        letters = SimulatedLetters(self._letters, process, self._chance)
        for port in (source, documents, letters):
            port.faults = self._faults
            self._ports.append(port)
        now, uniform = self._loop.time, self._chance.uniform
        committer = self._build.committer(
            self._build.documents(documents),
            patience=Patience(15.0, uniform=uniform, sleep=process.sleep, now=now),
            stats_shards=self._shards,
            known_runs=self._chance.choice((1, 3, 100)),
            retention=self._retention,
            now=now,
            wall_now=lambda: TODAY,
        )
        group = GroupLimits(batch=self._chance.choice((2, 5, 50)), messages=30)
        worker = PullWorker(
            self._build.source(source),
            Projector(committer, now=lambda: TODAY),
            PubSubDeadLetters(letters, "letters"),
            limits=PullLimits(pulls=2, messages=10, group=group, pull_seconds=20),
            now=now,
            sleep=process.sleep,
            uniform=uniform,
        )
        self.record.note("started", process.name)
        self._running[process] = asyncio.create_task(worker.run(stop=process.stop))

    def _disturb(self) -> None:
        """Do something to one of the processes."""
        process = self._chance.choice(list(self._running))
        what = self._chance.choice(("crashed", "paused", "went on", "replaced"))
        self.record.note(what, process.name)
        match what:
            case "crashed":
                process.crash()
                self._running.pop(process).cancel()
                self._loop.call_later(self._chance.uniform(0, 5), self._start)
                self._start()
            case "paused":
                process.pause()
                self._loop.call_later(self._chance.uniform(0, 60), process.go_on)
            case "replaced":
                process.stop.set()
                self._start()
            case _:
                process.go_on()

    def _heal(self) -> None:
        """Let nothing fail any more, and have somebody who works."""
        self.record.note("healed")
        self._faults = self._broker.duplicates = 0.0
        for port in self._ports:
            port.faults = 0.0
        for process in self._running:
            process.go_on()
        self._start()

    async def _ended(self, process: Process, running: asyncio.Task[object]) -> None:
        begun = self._loop.time()
        while not running.done() and self._loop.time() - begun < STUCK_SECONDS:
            process.go_on()
            await asyncio.sleep(0.1)
        self._assert(running.done(), f"{process.name} does not stop")
        running.result()

    def _check_acknowledged(self, message: Message) -> None:
        """Check that what will not come again is kept."""
        event = self._workload.events.get(message.data) or self._workload.late.get(message.data)
        is_kept = event is not None and self._store.holds(event)
        if message.data not in self._workload.events:
            is_kept = is_kept or any(letter == message for letter, _ in self._letters)
        self._assert(is_kept, f"acknowledged and lost: {message.data[:120]!r}")

    def _check_end(self) -> None:
        self._raise_failures()
        for workflow_id, _ in self._store.runs:
            self._store.check(workflow_id)
        newest = self._workload.newest()
        expired = {event.key for event in self._workload.before}
        self._assert(
            newest.keys() == self._store.runs.keys() - expired, "other runs are stored than published"
        )
        for key, event in newest.items():
            document = self._store.runs[key]
            self._assert(document.version == event.version, f"{key} ended as {document.version}, not {event}")
            self._assert(document.fields == run_fields(event.run), f"{key} has the state of another event")
        for event in self._workload.events.values():
            self._check_history(event)
        published = {message.data: message for message in self._workload.messages}
        for letter, _ in self._letters:
            self._assert(letter == published[letter.data], f"a dead letter of no message: {letter!r:.200}")
        letters = {letter.data: reason for letter, reason in self._letters}
        late = {data: reason for data, reason in letters.items() if data in self._workload.late}
        self._assert(set(late.values()) <= {DeadLetterReason.EXPIRED}, f"what came too late was {late}")
        self._assert(letters == {**self._workload.poison, **late}, f"the dead letters are {letters!r:.2000}")

    def _check_history(self, event: RunEvent) -> None:
        self._assert(self._store.holds(event), f"what {event.version} adds is not there")

    def _assert(self, holds: object, otherwise: str) -> None:
        self._raise_failures()
        if not holds:
            raise ViolationError(otherwise)

    def _on_failure(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        failure = context.get("exception")
        self._failures.append(
            failure if isinstance(failure, BaseException) else ViolationError(str(context["message"]))
        )

    def _raise_failures(self) -> None:
        for process, running in list(self._running.items()):
            if running.done() and not running.cancelled() and (failure := running.exception()) is not None:
                raise ViolationError(f"{process.name} ended: {failure!r}") from failure
        if self._failures:
            raise ViolationError(f"something failed: {self._failures[0]!r}") from self._failures[0]
