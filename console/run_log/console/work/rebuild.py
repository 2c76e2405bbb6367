"""``run-log rebuild`` as a process that signals stop: its progress, its result, and what to do then."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from run_log.console.signals import stopped_by_signal
from run_log.console.views.layout import Sheet
from run_log.core import InvalidArgumentError, Settings
from run_log.core.logs import get_logger
from run_log.projector.rebuild import (
    FromArchive,
    FromRoot,
    FromSubscription,
    RebuildSource,
    RebuildState,
    RebuildWork,
    Rebuilt,
    RejectsFile,
    destination,
    rebuild,
)

from .progress import Progress, shown

_logger: Final = get_logger("run_log.console")


class Done(NamedTuple):
    """The result of a rebuild, for programs, and what to do then."""

    rebuilt: Rebuilt
    record: dict[str, Any]
    advice: list[str]

    @property
    def sheet(self) -> Sheet:
        """The result for people."""
        shown = {name: value for name, value in self.record.items() if value is not None}
        return Sheet(rows=[(name.replace("_", " "), str(value)) for name, value in shown.items()])


def named_source(text: str, *, since: datetime | None, until_idle: float, keeps: bool) -> RebuildSource:
    """Return the source in ``--from``; other options that do not fit it are an `InvalidArgumentError`."""
    kind, _, name = text.partition(":")
    if text == "subscription":
        return FromSubscription(since=since, until_idle=until_idle, keeps=keeps)
    if since is not None or keeps:
        raise InvalidArgumentError("--since and --keep need --from subscription")
    if kind == "archive" and name:
        return FromArchive(path=name)
    if kind == "root" and name:
        return FromRoot(name=name)
    raise InvalidArgumentError(f"--from is {text!r}; pass archive:PATH, subscription, or root:NAME")


async def rebuild_until_signal(
    settings: Settings, source: RebuildSource, *, into: str, state: Path | None, rejects: Path | None
) -> Done:
    """Rebuild until all is folded, or until SIGTERM or SIGINT.

    *state* and *rejects* are the files for its progress and for what cannot be folded; None makes a name.
    """
    stop = stopped_by_signal()
    if isinstance(source, FromSubscription):
        from run_log.projector.pubsub import silence_after_kill
        from run_log.pubsub import REPLAY_LEASE

        silence = silence_after_kill(REPLAY_LEASE, extended=REPLAY_LEASE.total_seconds())
        source = replace(source, until_idle=max(source.until_idle, silence))
    state = state or _default_state(source, into)
    rejects = rejects or state.with_suffix(".rejects")
    with closing(RebuildState(state, source=str(source), into=destination(settings, source, into))) as noted:
        kept = RejectsFile(rejects, goes_on=not noted.is_new)
        work = RebuildWork(noted, kept, stop=stop)
        try:
            async with shown(_progress(work)):
                rebuilt = await rebuild(settings, source, into=into, work=work)
        finally:
            if noted.is_new and not noted.notes:
                state.unlink(missing_ok=True)  # it never began, so there is nothing to continue
    advice = _advice(settings, source, rebuilt, into=into, state=state, rejects=rejects)
    return Done(rebuilt, _record(rebuilt, into=into, state=state, rejects=rejects), advice)


def _record(rebuilt: Rebuilt, *, into: str, state: Path, rejects: Path) -> dict[str, Any]:
    is_timed = rebuilt.folded and rebuilt.seconds
    return {
        "into": into,
        "complete": rebuilt.complete,
        "events": rebuilt.events,
        "folded_now": rebuilt.folded,
        "runs": rebuilt.runs,
        "rejects": rebuilt.rejects,
        "expiring": rebuilt.expired,
        "seconds": round(rebuilt.seconds, 3),
        "events_per_second": round(rebuilt.folded / rebuilt.seconds) if is_timed else None,
        "state": str(state),
        "rejects_file": str(rejects) if rebuilt.rejects else None,
    }


def _default_state(source: RebuildSource, into: str) -> Path:
    kind = str(source).partition(":")[0]
    return Path(f"rebuild-{re.sub(r'[^A-Za-z0-9_-]+', '-', Path(into).name)}-from-{kind}.state")


def _advice(
    settings: Settings, source: RebuildSource, rebuilt: Rebuilt, *, into: str, state: Path, rejects: Path
) -> list[str]:
    if not rebuilt.complete:
        return [f"stopped; run the same command to continue from {state}"]
    lines = [f"rejected records, with place and reason: {rejects}"] if rebuilt.rejects else []
    lines += [f"{what}: {count}" for what, count in rebuilt.assumed.items()]
    if not rebuilt.events:
        found = "holds nothing that can be folded" if rebuilt.rejects else "is empty"
        return [*lines, f"{source} {found}: there is nothing to switch to"]
    if not rebuilt.folded:
        lines.append(f"nothing was left to fold; to fold all of it again, delete {state}")
    elif rebuilt.went_on:
        lines.append(f"new or changed since the last time, and folded: {rebuilt.folded}")
    if settings.backend == "sqlite":
        return [
            *lines,
            f"to switch: RUN_LOG_SQLITE_PATH={into}; back again: RUN_LOG_SQLITE_PATH={settings.sqlite_path}",
        ]
    live = settings.root_collection
    if isinstance(source, FromSubscription) and source.keeps:
        lines.append("its subscription is kept: run the same command to fold what comes later")
    compared = f"run-log verify --against {into}"
    if isinstance(source, FromRoot) and source.name != live:
        compared = f"RUN_LOG_ROOT_COLLECTION={source.name} {compared}"
    return [
        *lines,
        f"to compare the two: {compared}",
        f"to switch: RUN_LOG_ROOT_COLLECTION={into}, for the projector, then for readers",
        f"back again: RUN_LOG_ROOT_COLLECTION={live}",
    ]


def _progress(work: RebuildWork) -> Progress:
    def line(seconds: float) -> str:
        done, total = work.files
        files = f"{done}/{total} files, " if total else ""
        rate = work.folded / max(seconds, 0.001)
        return f"{files}{work.events} events, {rate:.0f}/s, {len(work.rejects)} rejected"

    def log(seconds: float) -> None:
        done, total = work.files
        _logger.info(
            "run_log_rebuild_progress",
            events=work.events,
            events_per_second=round(work.folded / seconds),
            rejects=len(work.rejects),
            files_done=done,
            files=total,
        )

    return Progress(line, log)
