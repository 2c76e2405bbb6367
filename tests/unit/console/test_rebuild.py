from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.e2e.command_line import Ended

from run_log.core import RunStatus, encode_event
from run_log.testing import an_event

from .files import in_file
from .processes import run_log

pytestmark = pytest.mark.process

ENVIRONMENT = {"RUN_LOG_BACKEND": "sqlite"}


def archive(folder: Path, *more: bytes) -> None:
    """Write an archive of three runs, from start to end, and some more lines."""
    (folder / "archive").mkdir()
    events = [
        an_event(id=f"r{number}", status=status)
        for number in range(3)
        for status in (RunStatus.RUNNING, RunStatus.SUCCESS)
    ]
    bodies = [*(encode_event(event).data for event in events), *more]
    (folder / "archive" / "events.jsonl").write_bytes(b"".join(body + b"\n" for body in bodies))


def rebuild(folder: Path, *options: str, **environment: str) -> Ended:
    """Run ``run-log rebuild`` from that archive into a file of SQLite."""
    arguments = ("rebuild", "--from", "archive:archive", "--into", "anew.db", *options)
    return run_log(*arguments, folder=folder, **{**ENVIRONMENT, **environment})


def test_what_a_rebuild_says(tmp_path: Path) -> None:
    """A rebuild says what it came to, alone on stdout, and how to switch and back again on stderr."""
    archive(tmp_path)

    ended = rebuild(tmp_path, "-o", "json")

    record = json.loads(ended.out)
    assert 0 == ended.code
    assert (True, 6, 6, 3, 0) == tuple(
        record[name] for name in ("complete", "events", "folded_now", "runs", "rejects")
    )
    assert record["events_per_second"] > 0
    assert (
        "to switch: RUN_LOG_SQLITE_PATH=anew.db; back again: RUN_LOG_SQLITE_PATH=run-log.sqlite3\n"
        == ended.err
    )
    counted = in_file(tmp_path / "anew.db", lambda log: log.get_stats("workflow-1"))
    assert {"total": 3, "successful": 3} == counted


def test_a_rebuild_that_is_complete(tmp_path: Path) -> None:
    """Run again, a rebuild that is complete folds nothing, says so, and how to begin anew."""
    archive(tmp_path)
    rebuild(tmp_path)

    again = rebuild(tmp_path)

    assert 0 == again.code
    assert (
        "nothing was left to fold; to fold all of it again, delete rebuild-anew-db-from-archive.state"
        in again.err
    )
    assert ["events", "6"] in [line.split() for line in again.out.splitlines()]


def test_a_rebuild_of_an_archive_that_has_grown(tmp_path: Path) -> None:
    """Run again, a rebuild folds what is new in grown files and in new ones, and says how much it was."""
    archive(tmp_path)
    rebuild(tmp_path)
    later = encode_event(an_event(id="later")).data + b"\n"
    with (tmp_path / "archive" / "events.jsonl").open("ab") as grown:
        grown.write(later)
    (tmp_path / "archive" / "more.jsonl").write_bytes(later + encode_event(an_event(id="last")).data + b"\n")

    again = rebuild(tmp_path, "-o", "json")

    record = json.loads(again.out)
    assert (0, 3, 5) == (again.code, record["folded_now"], record["runs"])
    assert "new or changed since the last time, and folded: 3\n" in again.err


def test_an_archive_that_is_empty(tmp_path: Path) -> None:
    """Of an archive that holds nothing a rebuild says just that, and advises nobody to switch."""
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "events.jsonl").touch()

    ended = rebuild(tmp_path)

    assert 0 == ended.code
    assert "is empty: there is nothing to switch to" in ended.err
    assert "to switch:" not in ended.err


def test_a_rebuild_that_rejects(tmp_path: Path) -> None:
    """Where something was rejected a rebuild folds the rest, exits 1, and says where to look; also again."""
    archive(tmp_path, b"junk")

    for _ in range(2):
        ended = rebuild(tmp_path)
        assert 1 == ended.code
        assert "rejected records, with place and reason: rebuild-anew-db-from-archive.rejects" in ended.err

    (kept,) = (tmp_path / "rebuild-anew-db-from-archive.rejects").read_text().splitlines()
    assert ("archive/events.jsonl:7", "junk") == (json.loads(kept)["place"], json.loads(kept)["body"])


def test_files_that_are_named(tmp_path: Path) -> None:
    """State and rejects go where they are told, also into the archive's own folder."""
    archive(tmp_path, b"junk")
    options = ("--state", "archive/far", "--rejects", "archive/wrong")

    codes = [rebuild(tmp_path, *options).code for _ in range(2)]

    assert [1, 1] == codes
    assert {"events.jsonl", "far", "wrong"} == {path.name for path in (tmp_path / "archive").iterdir()}
    assert 1 == len((tmp_path / "archive" / "wrong").read_text().splitlines())


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("rebuild --into x --from nothing", "pass archive:PATH, subscription, or root:NAME"),
        ("rebuild --into x --from archive:", "pass archive:PATH, subscription, or root:NAME"),
        ("rebuild --into x --from root:", "pass archive:PATH, subscription, or root:NAME"),
        ("rebuild --into x --from root:a --since 2h", "need --from subscription"),
        ("rebuild --into x --from archive:a --keep", "need --from subscription"),
        ("rebuild --into x --from subscription --since soon", "'soon' is not a moment"),
        ("rebuild --into x --from archive:none", "there is no file at none"),
        ("rebuild --into x --from archive:none/*.jsonl", "there is no file at none/*.jsonl"),
        ("rebuild --into x --from archive:folder", "there is no file at folder"),
        ("rebuild --into x --from root:a", "can only read archive files"),
        ("rebuild --into run-log.sqlite3 --from archive:a", "is the live file"),
        ("archive --into files", "no Google Cloud credentials"),
    ],
)
def test_what_cannot_be_done(command: str, told: str, tmp_path: Path) -> None:
    """A source that is none or not there, or an option that does not fit it, exits 2, and makes nothing."""
    (tmp_path / "folder").mkdir()

    ended = run_log(*command.split(), folder=tmp_path, **ENVIRONMENT)

    assert (2, "") == (ended.code, ended.out)
    assert told in ended.err
    assert ["folder"] == [path.name for path in tmp_path.iterdir()]


def test_the_live_root_is_no_destination(tmp_path: Path) -> None:
    """A rebuild into the live root collection exits 2 before anything is asked of Firestore."""
    command = ("rebuild", "--from", "root:old", "--into", "autopilot_runs")

    ended = run_log(
        *command, folder=tmp_path, FIRESTORE_EMULATOR_HOST="127.0.0.1:1", GOOGLE_CLOUD_PROJECT="p"
    )

    assert 2 == ended.code
    assert "is the live root collection (RUN_LOG_ROOT_COLLECTION)" in ended.err
