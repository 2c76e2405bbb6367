from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from run_log.core import (
    ConfigurationError,
    Message,
    MessageRefusedError,
    Outcome,
    RunEvent,
    RunStatus,
    StoreUnavailableError,
    TransportRefusedError,
    TransportUnavailableError,
    decode_event,
)
from run_log.projector import Projector
from run_log.projector.imports.publishing import PublishingStore
from run_log.projector.imports.work import AHEAD, EXPIRED, MOST_REASONS, OTHER, REFUSED
from run_log.projector.rebuild import RejectsFile
from run_log.stores import SQLiteRunLogService
from run_log.testing import an_event

from .kit import csv_text, from_csv, from_jsonl, imported

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def rows(count: int, *, statuses: Sequence[str] = ("success", "failed", "running")) -> list[dict[str, Any]]:
    """Return so many rows of three workflows."""
    return [
        {
            "workflow_id": f"w{number % 3}",
            "id": f"r{number}",
            "status": statuses[number % len(statuses)],
            "started_at": (NOON + timedelta(seconds=number)).isoformat(),
            "completed_at": ""
            if statuses[number % len(statuses)] == "running"
            else (NOON + timedelta(seconds=number + 5)).isoformat(),
        }
        for number in range(count)
    ]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SQLiteRunLogService]:
    """Yield an empty run log."""
    service = SQLiteRunLogService(path=tmp_path / "runs.db")
    yield service
    await service.close()


async def state(log: SQLiteRunLogService) -> dict[str, Any]:
    """Return all that queries see of each run, and the counts, which equal a recount."""
    workflows, _ = await log.list_workflows(limit=100)
    found: dict[str, Any] = {}
    for stats in workflows:
        runs, _ = await log.list_runs(stats.workflow_id, limit=1_000)
        for run in runs:
            history = await log.get_history(*run.key)
            found["/".join(run.key)] = (run, [(line.version, line.status) for line in history])
        counted = {status: sum(run.status is status for run in runs) for status in RunStatus}
        assert {status: count for status, count in counted.items() if count} == dict(stats.by_status)
        assert len(runs) == stats.total
    return found


async def test_to_import_again_changes_nothing(log: SQLiteRunLogService, tmp_path: Path) -> None:
    """A file that is imported again changes nothing; one that has grown, and moved on, only what is new."""
    table = rows(30)
    found = from_csv(tmp_path / "runs.csv", csv_text(table))
    first = await imported(found, log)
    before = await state(log)
    again = await imported(found, log)

    assert ({Outcome.APPLIED: 30}, {Outcome.DUPLICATE: 30}) == (first.outcomes, again.outcomes)
    assert before == await state(log)
    # A run that was running has ended, and one is new.
    table[2] |= {"status": "success", "completed_at": (NOON + timedelta(hours=1)).isoformat()}
    table += [{**table[0], "id": "new"}]
    grown = await imported(from_csv(tmp_path / "grown.csv", csv_text(table)), log)

    assert {Outcome.APPLIED: 2, Outcome.DUPLICATE: 29} == grown.outcomes
    ended = await log.get_run("w2", "r2")
    assert ended is not None
    assert RunStatus.SUCCESS is ended.status
    assert [RunStatus.RUNNING, RunStatus.SUCCESS] == [
        line.status for line in await log.get_history("w2", "r2")
    ]
    # The file of before, which is behind now, changes nothing either.
    after = await state(log)
    assert {Outcome.DUPLICATE: 30} == (await imported(found, log)).outcomes
    assert after == await state(log)


@pytest.mark.parametrize("seed", range(3))
async def test_any_order_and_any_repeats_are_the_same(tmp_path: Path, seed: int) -> None:
    """Rows in any order, in any parts, with repeats, end in the state of one import in order."""
    chance = random.Random(seed)
    lives = [
        {**row, "status": status, "completed_at": row["completed_at"] if status != "running" else ""}
        for row in rows(12, statuses=("success", "failed"))
        for status in ("pending", "running", "paused", row["status"])
    ]
    found = from_jsonl(tmp_path / "runs", "\n".join(map(json.dumps, lives)))
    shuffled = [*found, *chance.choices(found, k=20)]
    chance.shuffle(shuffled)
    logs = [SQLiteRunLogService(path=tmp_path / name) for name in ("one.db", "other.db")]
    try:
        await imported(found, logs[0])
        for start in range(0, len(shuffled), 17):
            await imported(shuffled[start : start + 17], logs[1], size=chance.randint(1, 9))

        assert await state(logs[0]) == await state(logs[1])
    finally:
        for log in logs:
            await log.close()


@pytest.mark.parametrize("after", [0, 1, 1_000_000])
@pytest.mark.parametrize("is_first", [False, True])
async def test_what_run_log_recorded_later_beats_an_import(
    log: SQLiteRunLogService, tmp_path: Path, after: int, *, is_first: bool
) -> None:
    """What run-log recorded at the moment of an import's state or later holds, whichever came first."""
    row = rows(1)
    (found,) = from_csv(tmp_path / "runs.csv", csv_text(row))
    ended = NOON + timedelta(seconds=5)
    micros = int(ended.timestamp()) * 1_000_000
    live = an_event(workflow_id="w0", id="r0", status=RunStatus.PAUSED, hlc=micros + after, occurred_at=ended)
    if is_first:
        await log.apply([live])
    await imported([found], log)
    if not is_first:
        await log.apply([live])
    run = await log.get_run("w0", "r0")

    assert run is not None
    assert RunStatus.PAUSED is run.status
    assert 2 == len(await log.get_history("w0", "r0"))


async def test_an_import_ends_what_run_log_saw_begin(log: SQLiteRunLogService, tmp_path: Path) -> None:
    """A run of which run-log only recorded its beginning gets the imported end."""
    (found,) = from_csv(tmp_path / "runs.csv", csv_text(rows(1)))
    await log.apply(
        [an_event(workflow_id="w0", id="r0", status=RunStatus.RUNNING, hlc=int(NOON.timestamp()) * 1_000_000)]
    )
    await imported([found], log)
    run = await log.get_run("w0", "r0")

    assert run is not None
    assert RunStatus.SUCCESS is run.status


async def test_a_dry_run_counts_and_writes_nothing(log: SQLiteRunLogService, tmp_path: Path) -> None:
    """A dry run counts by workflow and status, shows the first runs as they would be, and writes nothing."""
    found = from_csv(tmp_path / "runs.csv", csv_text([*rows(9), {**rows(1)[0], "status": "odd"}]))
    report = await imported(found, None)

    assert 10 == report.rows
    assert [("w0", 3), ("w1", 3), ("w2", 3)] == [(each.workflow_id, each.total) for each in report.stats]
    assert {RunStatus.SUCCESS: 3} == dict(report.workflows["w0"])
    assert ["r0", "r1", "r2", "r3", "r4"] == [run.id for run in report.first]
    assert [1] == [reason.count for reason in report.left_out.values()]
    assert not report.outcomes
    assert not (tmp_path / "runs.db").exists()
    assert {} == await state(log)


async def test_runs_that_have_expired_are_left_out(tmp_path: Path) -> None:
    """With a retention, what ended longer ago is left out and counted, and what is taken expires."""
    log = SQLiteRunLogService(path=tmp_path / "runs.db", retention_days=30)
    old = [{**row, "started_at": "2020-01-01T00:00:00Z", "completed_at": ""} for row in rows(2)]
    new = [{**rows(1)[0], "id": "new", "started_at": datetime.now(UTC).isoformat(), "completed_at": ""}]
    found = from_csv(tmp_path / "runs.csv", csv_text([*old, *new]))
    try:
        report = await imported(found, log, retention_days=30)

        assert {EXPIRED: 2} == {name: reason.count for name, reason in report.left_out.items()}
        assert 0 == report.rejects
        assert ["w0/new"] == [*await state(log)]
    finally:
        await log.close()


async def test_times_to_come_are_left_out(log: SQLiteRunLogService, tmp_path: Path) -> None:
    """A run of the day after tomorrow is left out: nothing that really happens could beat it."""
    ahead = {**rows(1)[0], "completed_at": (NOON + timedelta(days=2)).isoformat()}
    found = from_csv(tmp_path / "runs.csv", csv_text([ahead]))
    report = await imported(found, log, now=NOON)

    assert [AHEAD] == [*report.left_out]


async def test_rejects_are_kept_once(log: SQLiteRunLogService, tmp_path: Path) -> None:
    """What is left out is kept in a file with place, reason and content, once for however many imports."""
    found = from_csv(tmp_path / "runs.csv", csv_text([{**rows(1)[0], "status": "odd"}]))
    for _ in range(2):
        kept = RejectsFile(tmp_path / "rejects", goes_on=True)
        await imported(found, log, rejects=kept)
    (line,) = (tmp_path / "rejects").read_text().splitlines()
    record = json.loads(line)

    assert ("line 2", "invalid_event") == (record["place"], record["reason"])
    assert "r0" == json.loads(record["body"])["id"]


def test_rejects_need_a_folder(tmp_path: Path) -> None:
    """That rejects cannot be kept is told before anything is read, and not with the first of them."""
    with pytest.raises(ConfigurationError, match=r"there is no folder .* for rejects"):
        RejectsFile(tmp_path / "none" / "rejects", goes_on=True)


async def test_reasons_and_examples_are_bounded(tmp_path: Path) -> None:
    """However many words a file has, there are so many reasons, and so many examples of each."""
    table = [{**row, "status": f"odd-{number // 4}"} for number, row in enumerate(rows(400))]
    report = await imported(from_csv(tmp_path / "runs.csv", csv_text(table)), None)

    assert MOST_REASONS + 1 == len(report.left_out)
    assert 400 == sum(reason.count for reason in report.left_out.values())
    assert {3} == {len(reason.examples) for reason in report.left_out.values()}
    assert report.left_out[OTHER].examples[0].startswith("line 202: its status is unknown")


async def test_published_events_are_those_of_a_store(log: SQLiteRunLogService, tmp_path: Path) -> None:
    """With the topic as the store, the messages hold exactly what a store would merge."""
    found = from_csv(tmp_path / "runs.csv", csv_text(rows(9)))
    published: list[RunEvent] = []

    async def publish(message: Message) -> str:
        published.append(decode_event(message))
        return str(len(published))

    report = await imported(found, PublishingStore(publish))
    await imported(found, log)
    before = await state(log)

    assert {Outcome.APPLIED: 9} == report.outcomes
    assert [Outcome.DUPLICATE] * 9 == await Projector(log).apply(published)
    assert before == await state(log)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransportUnavailableError("away"), StoreUnavailableError),
        (TransportRefusedError("no topic"), ConfigurationError),
    ],
)
async def test_a_broker_that_fails_ends_an_import(
    tmp_path: Path, error: Exception, expected: type[Exception]
) -> None:
    """An import into a topic that does not answer, or refuses, ends with an error."""

    async def publish(_message: Message) -> str:
        raise error

    with pytest.raises(expected, match=str(error)):
        await imported(from_csv(tmp_path / "runs.csv", csv_text(rows(3))), PublishingStore(publish))


async def test_one_refused_message_leaves_out_only_its_run(tmp_path: Path) -> None:
    """A run that the broker refuses is left out, and the others are published."""

    async def publish(message: Message) -> str:
        if decode_event(message).run.id == "r1":
            raise MessageRefusedError("too large")
        return "1"

    report = await imported(from_csv(tmp_path / "runs.csv", csv_text(rows(4))), PublishingStore(publish))

    assert {Outcome.APPLIED: 3} == report.outcomes
    assert ["line 3: too large"] == report.left_out[REFUSED].examples
