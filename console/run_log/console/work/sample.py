"""Sample workflows that keep running, written as a user would: a newcomer sees the dashboard alive."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from run_log.core import RunLogError, RunStatus, TriggerType, utc_now
from run_log.producer import record_run, reset_default_emitter, resume_run
from run_log.stores import PendingRun, RunLog, SQLiteRunLogService

from .sample_past import EXPENSES, INVOICES, MAILS, REGIONS, REPORTS, past, run_name

REGION: Final = "reports/region"

MOST_RUNS: Final = 20_000
"""After so many, none is started any more: nobody looks, and the file would grow for ever."""

MOST_PENDING: Final = 6
"""Where more wait for an answer, a colleague answers the oldest."""

COLLEAGUE: Final = "mei@example.com"

SMALL_AMOUNT: Final = 1_000
PURCHASES: Final = ("books", "a machine", "travel to Lyon", "a licence", "two desks")

PAYMENT: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "amount": {"type": "number", "title": "Amount to pay", "minimum": 1},
        "account": {"type": "string", "title": "Account", "enum": ["4711 Equipment", "4712 Travel"]},
        "urgent": {"type": "boolean", "title": "Pay today"},
    },
    "required": ["amount", "account"],
}
"""What the one fills in who answers a large expense."""


@contextlib.contextmanager
def sample_environment() -> Generator[None]:
    """Have the environment name a new file as the run log, which does not outlive the block."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="run-log-") as folder:
        for name in before:
            # A spool or a root collection of somebody's own has nothing to do with samples.
            if name.startswith("RUN_LOG_") and not name.startswith("RUN_LOG_DASHBOARD_"):
                del os.environ[name]
        os.environ["RUN_LOG_BACKEND"] = "sqlite"
        os.environ["RUN_LOG_SQLITE_PATH"] = str(Path(folder) / "sample.sqlite3")
        os.environ["RUN_LOG_HANDLE_SIGTERM"] = "false"  # the command handles it
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextlib.asynccontextmanager
async def sample_running() -> AsyncGenerator[None]:
    """Fill the environment's file with a past, and have sample workflows run while the block does."""
    log = SQLiteRunLogService.from_env()
    await log.apply(tuple(past(utc_now(), random.Random())))  # noqa: S311 - as below
    playing = asyncio.create_task(Sample(log).run())
    try:
        yield
    finally:
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
        await asyncio.to_thread(reset_default_emitter)
        await log.close()


class Sample:
    """Workflows that run for as long as `run` does; what is under way when it is cancelled is cancelled too.

    Args:
        log: Where the runs are read that wait for an answer. They are recorded with the default emitter.
        chance: Decides what happens.
        sleep: Waits; the work of a workflow is nothing else.
    """

    def __init__(
        self,
        log: RunLog,
        *,
        chance: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._log = log
        self._chance = chance or random.Random()  # noqa: S311 - it decides what a sample does
        self._sleep = sleep
        self._started = 0
        self._continued: set[str] = set()

    async def run(self) -> None:
        """Start workflows again and again, until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for workflow, pause in (
                (self.sync_invoices, 7),
                (self.triage_mail, 5),
                (self.ask_for_expense, 20),
                (self.report, 45),
            ):
                tasks.create_task(self._again_and_again(workflow, pause, tasks))
            tasks.create_task(self._go_on_with_answered(tasks))
            tasks.create_task(self._answer_the_oldest())

    async def sync_invoices(self) -> None:
        """Download and post invoices: some calls have to be tried again, and some never succeed."""
        chance, region = self._chance, self._chance.choice(REGIONS)
        labels = {"team": "billing", "region": region}
        async with record_run(
            INVOICES, run_id=self._name(), trigger_type=TriggerType.SCHEDULED, labels=labels
        ) as run:
            files = chance.randint(3, 9)
            async with run.step("download") as download:
                download.set(files=files, bucket=f"invoices-{region}")
                await self._work(1.5)
            async with run.step("parse"):
                for number in range(1, files + 1):
                    await self._work(0.6)
                    run.progress(number / files, f"{number} of {files} files")
            for tries_left in (2, 1, 0):
                try:
                    async with run.step("post") as post:
                        post.set(endpoint="/v2/invoices")
                        await self._post()
                    break
                except ConnectionError:
                    if not tries_left:
                        raise
            run.set_result({"synced": 12 * files, "region": region})

    async def _post(self) -> None:
        await self._work(1)
        if self._happens(0.45):
            raise ConnectionError(f"502 from billing-{self._chance.randint(1, 4)}.example.com")

    async def triage_mail(self) -> None:
        """Sort a mail: a short run, sometimes with nothing to do, sometimes with what cannot be read."""
        number = self._chance.randint(1_000, 9_999)
        data = {"message": number, "subject": f"Invoice {number}", "from": "billing@example.com"}
        async with record_run(
            MAILS, run_id=self._name(), trigger_type=TriggerType.GMAIL_PUSH, trigger_data=data
        ) as run:
            await self._work(0.5)
            if self._happens(0.12):
                raise ValueError(f"message {number} has no sender")
            if self._happens(0.15):
                run.skip("a newsletter")
            else:
                run.set_result({"folder": self._chance.choice(["invoices", "offers", "people"])})

    async def ask_for_expense(self) -> None:
        """Read a receipt and ask a person: small amounts with a choice, large ones with a form."""
        amount, what = self._chance.randint(20, 5_000), self._chance.choice(PURCHASES)
        data = {"amount": amount, "currency": "EUR", "what": what}
        async with record_run(
            EXPENSES,
            run_id=self._name(),
            trigger_type=TriggerType.FILE_UPLOAD,
            trigger_data=data,
            labels={"team": "office"},
        ) as run:
            async with run.step("read receipt") as step:
                step.set(pages=1)
                await self._work(1)
            reason = f"{amount:,} EUR for {what}: pay?"
            if amount > SMALL_AMOUNT:
                deadline = utc_now() + timedelta(days=2)
                run.pause(reason, assignee=COLLEAGUE, deadline=deadline, form=PAYMENT)
            else:
                deadline = utc_now() + timedelta(minutes=self._chance.randint(5, 90))
                run.pause(reason, deadline=deadline, choices=["pay", "wait"], default_choice="wait")

    async def pay(self, run_id: str) -> None:
        """Go on with an expense that somebody has answered."""
        async with resume_run(EXPENSES, run_id, run_log=self._log) as run:
            async with run.step("transfer"):
                await self._work(2)
            run.set_result({"paid": True})

    async def report(self) -> None:
        """Make a report of all regions: a long run, which says how far it is, with a run for each region."""
        async with record_run(
            REPORTS,
            run_id=self._name(),
            trigger_type=TriggerType.SCHEDULED,
            heartbeat=timedelta(seconds=10),
        ) as run:
            for number, region in enumerate(REGIONS, 1):
                run.progress((number - 1) / len(REGIONS), f"region {region}")
                part_of = record_run(REGION, run_id=self._name(), labels={"region": region})
                async with run.step(region), part_of as part:
                    rows = self._chance.randint(200, 9_000)
                    async with part.step("query"):
                        await self._work(4)
                    async with part.step("render"):
                        await self._work(3)
                        if self._happens(0.06):
                            raise MemoryError(f"{rows} rows do not fit")
                    part.set_result({"rows": rows})
            run.set_result({"pages": 3 * len(REGIONS)})

    def _happens(self, likelihood: float) -> bool:
        return self._chance.random() < likelihood

    def _name(self) -> str:
        return run_name(utc_now(), self._chance)

    async def _work(self, seconds: float) -> None:
        await self._sleep(seconds * self._chance.uniform(0.5, 1.5))

    async def _again_and_again(
        self, workflow: Callable[[], Awaitable[None]], pause: float, tasks: asyncio.TaskGroup
    ) -> None:
        while self._started < MOST_RUNS:
            self._started += 1
            tasks.create_task(_forgiven(workflow()))
            await self._work(pause)

    async def _go_on_with_answered(self, tasks: asyncio.TaskGroup) -> None:
        async with self._log.watch(EXPENSES) as updates:
            async for update in updates:
                run = update.run
                if run.status.is_terminal:
                    self._continued.discard(run.id)
                elif run.status is RunStatus.RUNNING and run.pause and run.id not in self._continued:
                    self._continued.add(run.id)
                    tasks.create_task(_forgiven(self.pay(run.id)))

    async def _answer_the_oldest(self) -> None:
        while True:
            await self._work(10)
            waiting, _ = await self._log.list_pending(limit=2 * MOST_PENDING)
            if len(waiting) > MOST_PENDING:
                await self._answer(waiting[-1])

    async def _answer(self, waiting: PendingRun) -> None:
        run = waiting.run
        pause = run.pause
        with contextlib.suppress(RunLogError):  # somebody else was quicker
            await self._log.resume(
                *run.key,
                answered_by=COLLEAGUE,
                choice=pause.choices[0] if pause and pause.choices else None,
                values={"amount": run.trigger_data.get("amount", 1), "account": "4711 Equipment"}
                if pause and pause.form
                else None,
                if_version=waiting.version,
            )


async def _forgiven(work: Awaitable[None]) -> None:
    # What fails as it should is recorded, and the next one is tried all the same.
    with contextlib.suppress(ConnectionError, ValueError, MemoryError):
        await work
