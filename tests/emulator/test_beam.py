"""The pipeline on Beam's direct runner, in Beam's own environment, against the Firestore emulator."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.frameworks import REPOSITORY
from tests.unit.projector.archives import lines, write_avro, write_gzip

from run_log.core import RunEvent, RunStatus, Settings, encode_event
from run_log.projector.rebuild import (
    FromArchive,
    RebuildState,
    RebuildWork,
    RejectsFile,
    rebuild,
)
from run_log.stores import FirestoreRunLogService
from run_log.stores.audit import Comparison, compare
from run_log.testing import a_life, an_event

from .beam_kit import BEAM, BeamProcess, pipeline

pytestmark = [pytest.mark.emulator, pytest.mark.timeout(900)]
"""Beam is 600 MB to fetch on a machine that has not seen it."""

EVENTS = 2 * 2 * 90 + 60
RUNS = 2 * 90 + 1


@pytest.fixture(scope="module")
def _beam() -> None:
    BEAM.make()


@pytest.fixture
def environ(_beam: None, emulator_environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return the variables that lead a pipeline to the emulator; Beam's environment is there then."""
    return {**emulator_environment, "RUN_LOG_RETENTION_DAYS": "30", "RUN_LOG_STATS_SHARDS": "3"}


def _events() -> list[RunEvent]:
    ends = [RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.PAUSED]
    lives = [
        event
        for workflow_id in ("w", "a/b c")
        for number in range(90)
        for event in a_life(workflow_id, f"r{number}", end=ends[number % 3])
    ]
    # More than a history keeps.
    return lives + [an_event(id="long", workflow_id="w", attempt=number) for number in range(1, 61)]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return an archive in all forms, shuffled, a third of its events twice, with three odd ones.

    They are no event, no JSON, and the newest state of a run, larger than any document, which is cut.
    """
    folder = tmp_path / "archive"
    (folder / "2026").mkdir(parents=True)
    events = _events()
    events += events[::3]
    random.Random(7).shuffle(events)
    large = json.loads(encode_event(an_event(id="r1", workflow_id="w")).data)
    large["run"]["result"] = {"text": "x" * 1_100_000}
    others = b"".join(json.dumps(body).encode() + b"\n" for body in ({"of": "others"}, large))
    (folder / "one.jsonl").write_bytes(lines(events[:100]) + others)
    write_gzip(folder / "2026" / "two.jsonl.gz", lines(events[100:300]) + b"no JSON\n")
    write_avro(folder / "2026" / "three", [encode_event(event) for event in events[300:]])
    (folder / "2026" / ".hidden").write_bytes(b"of a writer that was killed")
    return folder


@pytest.fixture
async def _rebuilt(archive: Path, tmp_path: Path, environ: Mapping[str, str]) -> None:
    """Fold the archive into the root collection ``one``, in this process."""
    settings = Settings.from_env({**environ, "RUN_LOG_BACKEND": "firestore"})
    source = FromArchive(path=str(archive))
    state = RebuildState(tmp_path / "state", source=str(source), into="one")
    rejects = RejectsFile(tmp_path / "one.rejects", goes_on=False)
    work = RebuildWork(state, rejects, stop=asyncio.Event())
    await rebuild(settings, source, into="one", work=work)
    state.close()


@pytest.fixture
async def roots(_rebuilt: None) -> AsyncIterator[list[FirestoreRunLogService]]:
    """Yield the projections in ``one``, which is made, and ``other``, which is not."""
    services = [FirestoreRunLogService(root_collection=name) for name in ("one", "other")]
    yield services
    await asyncio.gather(*(service.close() for service in services))


async def _compared(roots: list[FirestoreRunLogService]) -> list[Comparison]:
    one, other = (root.audit() for root in roots)
    return [found async for found in compare(one, other)]


def _rejected(folder: Path, names: str) -> list[tuple[str, str, str | None]]:
    records: list[dict[str, Any]] = [
        json.loads(line) for path in folder.glob(names) for line in path.read_text().splitlines()
    ]
    return sorted((record["place"], record["reason"], record.get("body")) for record in records)


async def test_a_pipeline_is_a_rebuild(
    archive: Path,
    tmp_path: Path,
    environ: Mapping[str, str],
    roots: list[FirestoreRunLogService],
) -> None:
    """The pipeline makes the projection that a rebuild makes, rejects the same, and says so in numbers."""
    process = pipeline(archive / "**", "other", tmp_path / "rejects", environ)

    assert 1 == process.wait(), process.stderr
    assert [("a/b c", 90, False), ("w", 91, False)] == [
        (found.workflow_id, found.runs, found.differs) for found in await _compared(roots)
    ]
    rejected = _rejected(tmp_path, "rejects*")
    assert rejected == _rejected(tmp_path, "one.rejects")
    assert {"unknown_type", "undecodable"} == {reason for _, reason, _ in rejected}
    read = EVENTS + EVENTS // 3 + 1
    expiring = RUNS - 2 * 30  # those that are not paused
    counts = {"events": read, "runs": RUNS, "rejects": 2, "expiring": expiring}
    assert {"into": "other", "state": "DONE", **counts} == process.counts()


async def test_pipelines_at_once(
    archive: Path,
    tmp_path: Path,
    environ: Mapping[str, str],
    roots: list[FirestoreRunLogService],
) -> None:
    """Two pipelines that write every run of one root collection at once end in what one makes."""
    processes = [pipeline(archive / "**", "other", tmp_path / name, environ) for name in ("a", "b")]

    assert [1, 1] == [process.wait() for process in processes]
    assert not any(found.differs for found in await _compared(roots))
    assert {"total": 91, "successful": 32} == await roots[1].get_stats("w")


async def test_a_bundle_that_is_worked_on_again(
    archive: Path,
    tmp_path: Path,
    environ: Mapping[str, str],
    roots: list[FirestoreRunLogService],
) -> None:
    """A bundle whose commit is made, and told to have failed, is worked on again and changes nothing."""
    program = REPOSITORY / "tests" / "emulator" / "beam_program.py"
    lost = tmp_path / "lost"

    process = BeamProcess(program, archive / "**", "other", tmp_path / "rejects", lost, environ=environ)

    assert 0 == process.wait(), process.stderr
    assert {"applied"} == set(json.loads(lost.read_text()))
    assert "the answer got lost" in process.stderr
    assert not any(found.differs for found in await _compared(roots))
    assert 2 == len(_rejected(tmp_path, "rejects*"))
