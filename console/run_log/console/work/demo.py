"""``run-log demo``: in one process, workflows emit, a projector folds, and queries answer."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final, TextIO

from run_log.console.views.layout import Table, literal, painted
from run_log.console.views.output import screen, write
from run_log.console.views.tables import history_table, pending_table, runs_table, workflows_table
from run_log.core import DeadLetterReason, ReceivedMessage, RunEvent, TriggerType, WorkflowRun, utc_now
from run_log.core.law import count_statuses
from run_log.producer import RunEventEmitter, record_run
from run_log.projector import Outcome, Projector, PullLimits, PullReport, PullWorker
from run_log.stores import InMemoryRunLogService, SQLiteRunLogService
from run_log.testing import Faults, InMemorySubscription, InMemoryTopic

FAULTS: Final = Faults(duplicate=0.4, reorder=1.0, delay=0.3)
SEED: Final = 7
PULL_SECONDS: Final = 0.3
LOOK_SECONDS: Final = 0.01
PATIENCE_SECONDS: Final = 60.0
COLUMNS: Final = 80
"""Width of tables without a terminal. A demo is for people, so its tables are never unbounded."""

INVOICES: Final = "invoices/sync"
MAILS: Final = "mails/triage"
EXPENSES: Final = "expenses/pay"
WORKFLOWS: Final = (INVOICES, MAILS, EXPENSES)

READ_AGAIN: Final = """
import asyncio, sys
from run_log.stores import SQLiteRunLogService

async def main():
    log = SQLiteRunLogService(path=sys.argv[1])
    for workflow in sys.argv[2:]:
        stats = await log.get_stats(workflow)
        print(f"{stats['total']} runs of {workflow}, {stats['successful']} successful")
    await log.close()

asyncio.run(main())
"""
"""A program that reads the file after this process has closed it."""


async def run_demo(stream: TextIO | None = None) -> bool:
    """Run and print the demo; return whether another process found the runs and the stats equal a recount.

    Args:
        stream: Where to print; None is standard output.
    """
    stage = Stage(stream)
    topic = InMemoryTopic(faults=FAULTS, seed=SEED)
    subscription = topic.subscribe()
    emitter = RunEventEmitter(topic)
    store = InMemoryRunLogService()
    limits = PullLimits(pull_seconds=PULL_SECONDS)
    worker = PullWorker(subscription, Projector(store), PrintedDeadLetters(stage), limits=limits)

    stage.head("Three workflows run, and forget")
    await _workflows(emitter)
    delivered = await emitter.flush(PATIENCE_SECONDS)
    stage.say(f"emitted {emitter.stats.emitted} events, delivered {delivered.delivered} to the topic")

    stage.head("A projector folds what arrives: twice, late, in any order")
    report = await _drain(worker, subscription)
    emitter.close()
    stage.say(_summary(report))

    listed = {workflow: (await store.list_runs(workflow))[0] for workflow in WORKFLOWS}
    await _queries(stage, store, listed)

    stage.head("With RUN_LOG_BACKEND=sqlite, one file outlives the process")
    survives = await _outlives(stage, listed)

    exact = [await _is_exact(store, workflow, listed[workflow]) for workflow in WORKFLOWS]
    await store.close()
    if all(exact):
        stage.say("Stats equal a recount of the runs.", style="green")
    else:
        stage.say("Stats differ from a recount of the runs!", style="red")
    return survives and all(exact)


class Stage:
    """Prints the demo.

    Args:
        stream: Where to print; None is standard output.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        seen = screen(stream=stream)
        self._screen = replace(seen, width=seen.width or COLUMNS)

    def head(self, text: str) -> None:
        """Print a heading."""
        self.say("")
        self.say(text, style="bold")

    def say(self, text: str, *, style: str = "") -> None:
        """Print a line as it is."""
        told = painted(literal(text, self._screen.encoding), style, self._screen)
        write([told], self._stream)

    def show(self, title: str, table: Table) -> None:
        """Print a table."""
        lines = ["", *replace(table, title=title).lines(self._screen)]
        write(lines, self._stream)


async def _queries(
    stage: Stage, store: InMemoryRunLogService, listed: Mapping[str, Sequence[WorkflowRun]]
) -> None:
    stage.show("Runs", runs_table([run for runs in listed.values() for run in runs]))
    workflows, _ = await store.list_workflows()
    stage.show("Workflows", workflows_table(workflows))
    pending, _ = await store.list_pending()
    stage.show("Waiting for an answer", pending_table(pending))
    answered = listed[EXPENSES][-1]
    history = await store.get_history(EXPENSES, answered.id)
    stage.show(f"History of {answered.id}", history_table(history))


async def _outlives(stage: Stage, listed: Mapping[str, Sequence[WorkflowRun]]) -> bool:
    """Write the runs to a file, and return whether another process finds them there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run-log.sqlite3"
        log = SQLiteRunLogService(path=path)
        await log.apply([RunEvent(run=run) for runs in listed.values() for run in runs])
        await log.close()
        reading = await asyncio.create_subprocess_exec(
            sys.executable, "-c", READ_AGAIN, path, *listed, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await reading.communicate()
    found = printed.decode().splitlines()
    for line in found:
        stage.say(f"another process finds {line}")
    recounts = {workflow: count_statuses(run.status for run in runs) for workflow, runs in listed.items()}
    expected = [
        f"{count.total} runs of {workflow}, {count.successful} successful"
        for workflow, count in recounts.items()
    ]
    if found != expected:
        stage.say("Another process does not find the same runs!", style="red")
    return found == expected


async def _drain(worker: PullWorker, subscription: InMemorySubscription) -> PullReport:
    """Run *worker* until *subscription* is empty."""
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(stop=stop))
    while subscription.backlog and not working.done():  # noqa: ASYNC110 - it has no event for that
        await asyncio.sleep(LOOK_SECONDS)
    stop.set()
    return await working


async def _workflows(emitter: RunEventEmitter) -> None:
    for number in range(3):
        run_id = f"invoice-{number + 1}"
        scheduled = TriggerType.SCHEDULED
        async with record_run(INVOICES, trigger_type=scheduled, run_id=run_id, emitter=emitter) as run:
            run.set_result({"synced": 10 * (number + 1)})

    for number, subject in enumerate(("Offer", "Invoice 4711")):
        mail = {"subject": subject}
        # record_run passes the error on, so the workflow handles it as it would without.
        with (
            contextlib.suppress(TimeoutError),
            record_run(
                MAILS,
                trigger_type=TriggerType.GMAIL_PUSH,
                trigger_data=mail,
                run_id=f"mail-{number + 1}",
                emitter=emitter,
            ),
        ):
            _triage(subject)

    with record_run(
        EXPENSES,
        trigger_type=TriggerType.FILE_UPLOAD,
        trigger_data={"amount": 80},
        run_id="expense-1",
        emitter=emitter,
    ) as run:
        run.pause("80 EUR for books: pay?", assignee="mei@example.com")
        run.resume(answered_by="mei@example.com")
        run.set_result({"paid": True})
    with record_run(
        EXPENSES,
        trigger_type=TriggerType.FILE_UPLOAD,
        trigger_data={"amount": 4_200},
        run_id="expense-2",
        emitter=emitter,
    ) as run:
        deadline = utc_now() + timedelta(days=2)
        run.pause("4,200 EUR for a machine: pay?", assignee="mei@example.com", deadline=deadline)


def _triage(subject: str) -> None:
    if subject.startswith("Invoice"):
        raise TimeoutError("no answer in 30 s")


async def _is_exact(store: InMemoryRunLogService, workflow: str, runs: Sequence[WorkflowRun]) -> bool:
    recount = count_statuses(run.status for run in runs)
    return await store.get_stats(workflow) == {"total": recount.total, "successful": recount.successful}


def _summary(report: PullReport) -> str:
    counts = ", ".join(f"{report.outcomes[outcome]} {outcome.value}" for outcome in Outcome)
    return f"pulled {report.pulled} messages: {counts}"


class PrintedDeadLetters:
    """Prints the dead letters of the demo."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
        """Show *message*, which nothing keeps."""
        self._stage.say(f"dead letter {message.message_id}: {reason.value}: {error}")
