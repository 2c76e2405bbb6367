"""``run-log import`` as a process that signals stop: its progress, its result, and what to do then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from run_log.console.signals import stopped_by_signal
from run_log.console.views.layout import Sheet, Table
from run_log.console.views.tables import left_out_table, runs_table, workflows_table
from run_log.core import ConfigurationError, Outcome, Settings
from run_log.core.logs import get_logger
from run_log.producer import Redaction
from run_log.projector.imports import Found, ImportReport, Redact, import_runs
from run_log.projector.rebuild import RejectsFile
from run_log.stores import ProjectionStore

from .opening import opened_run_log, reached_broker
from .progress import Progress, shown

_MOST_WORKFLOWS: Final = 20

_logger: Final = get_logger("run_log.console")

Source = Callable[[Settings, Redact, ImportReport], AsyncGenerator[Sequence[Found]]]
"""Returns what a source finds, in batches."""


class Imported(NamedTuple):
    """The result of an import, and what to do then."""

    report: ImportReport
    dry_run: bool
    publishes: bool
    seconds: float
    rejects: Path | None

    @property
    def record(self) -> dict[str, Any]:
        """The result for programs."""
        report = self.report
        return {
            "dry_run": self.dry_run,
            "complete": report.complete,
            "rows": report.rows,
            **({} if self.dry_run else self._outcomes),
            "left_out": [
                {"reason": name, "count": reason.count, "first": reason.examples}
                for name, reason in report.left_out.items()
            ],
            "without": dict(report.without),
            "workflows": [
                {
                    "workflow_id": each.workflow_id,
                    "total": each.total,
                    "by_status": each.to_json()["by_status"],
                }
                for each in report.stats
            ],
            "first_runs": [run.to_json() for run in report.first] if self.dry_run else [],
            "seconds": round(self.seconds, 3),
        }

    @property
    def views(self) -> list[Table | Sheet]:
        """The result for people."""
        report = self.report
        counts: dict[str, int] = {"rows": report.rows, **({} if self.dry_run else self._outcomes)}
        counts["left out"] = sum(reason.count for reason in report.left_out.values())
        views: list[Table | Sheet] = [Sheet(rows=[(name, str(count)) for name, count in counts.items()])]
        if report.left_out:
            views.append(left_out_table(report.left_out.items()))
        if stats := report.stats:
            views.append(workflows_table(stats[:_MOST_WORKFLOWS]))
        if self.dry_run and report.first:
            views.append(runs_table(report.first))
        return views

    @property
    def advice(self) -> list[str]:
        """What else there is to say."""
        report = self.report
        lines = [f"{what}: {count}" for what, count in report.without.items()]
        if len(report.workflows) > _MOST_WORKFLOWS:
            lines.append(f"{len(report.workflows)} workflows in all; -o json shows each")
        if self.rejects is not None and report.rejects:
            lines.append(f"what was left out, with place and reason: {self.rejects}")
        if not report.complete:
            lines.append("stopped; run the same command to go on: what is imported changes nothing")
        elif self.dry_run:
            lines.append("a dry run: nothing is written; run the same command without --dry-run")
        elif self.publishes:
            lines.append("published; a projector stores them")
        return lines

    @property
    def _outcomes(self) -> dict[str, int]:
        outcomes = self.report.outcomes
        if self.publishes:
            return {"published": outcomes[Outcome.APPLIED]}
        return {
            "imported": outcomes[Outcome.APPLIED],
            "unchanged": outcomes[Outcome.DUPLICATE],
            "superseded": outcomes[Outcome.STALE],
        }


async def import_until_signal(
    settings: Settings, source: Source, *, dry_run: bool, rejects: Path | None
) -> Imported:
    """Import what *source* finds until all is read, or until SIGTERM or SIGINT.

    *rejects* is the file for what is left out; None only counts it.
    """
    redaction = Redaction.from_setting(settings.redact_keys, texts=settings.redact_text)
    kept = None if rejects is None else RejectsFile(rejects, goes_on=True)
    report = ImportReport()
    begun = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        store = None if dry_run else await stack.enter_async_context(_opened_store(settings))
        stop = stopped_by_signal()
        await stack.enter_async_context(shown(_progress(report)))
        await import_runs(
            source(settings, redaction.apply_to_run, report),
            store,
            report,
            stop=stop,
            retention_days=settings.retention_days,
            rejects=kept,
        )
    return Imported(
        report=report,
        dry_run=dry_run,
        publishes=settings.backend == "pubsub",
        seconds=time.monotonic() - begun,
        rejects=rejects,
    )


@contextlib.asynccontextmanager
async def _opened_store(settings: Settings) -> AsyncGenerator[ProjectionStore]:
    if settings.backend != "pubsub":
        async with opened_run_log(saves=True, makes=True) as log:
            if not hasattr(log, "apply"):
                raise ConfigurationError(f"the back end {settings.backend!r} takes no events of the past")
            yield cast("ProjectionStore", log)
        return
    # Not into Firestore directly: archives, rebuilds and the warehouse have what the topic has.
    await reached_broker(settings)
    from run_log.projector.imports.publishing import PublishingStore
    from run_log.projector.pubsub import PubSubEvents
    from run_log.pubsub import PubSubConnection

    topic = PubSubEvents(PubSubConnection.from_settings(settings), settings.topic)
    try:
        yield PublishingStore(topic.publish)
    finally:
        await topic.close()


def _progress(report: ImportReport) -> Progress:
    def left_out() -> int:
        return sum(reason.count for reason in report.left_out.values())

    def line(seconds: float) -> str:
        return f"{report.rows} rows, {report.rows / max(seconds, 0.001):.0f}/s, {left_out()} left out"

    def log(seconds: float) -> None:
        _logger.info(
            "run_log_import_progress",
            rows=report.rows,
            rows_per_second=round(report.rows / seconds),
            left_out=left_out(),
        )

    return Progress(line, log)
