from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from run_log.console import main
from run_log.core import RunStatus, encode_event
from run_log.testing import an_event

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


def rebuild(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``run-log rebuild`` from that archive into a file of SQLite."""
    arguments = ("rebuild", "--from", "archive:archive", "--into", "anew.db", *options)
    return run_log(*arguments, folder=folder, **{**ENVIRONMENT, **environment})


def test_what_a_rebuild_says(tmp_path: Path) -> None:
    """A rebuild says what it came to, alone on stdout, and how to switch and back again on stderr."""
    archive(tmp_path)

    ended = rebuild(tmp_path, "-o", "json")

    record = json.loads(ended.stdout)
    assert 0 == ended.returncode
    assert (True, 6, 6, 3, 0) == tuple(
        record[name] for name in ("complete", "events", "folded_now", "runs", "rejects")
    )
    assert record["events_per_second"] > 0
    assert (
        "to switch: RUN_LOG_SQLITE_PATH=anew.db; back again: RUN_LOG_SQLITE_PATH=run-log.sqlite3\n"
        == ended.stderr
    )
    stats = run_log(
        "runs",
        "stats",
        "workflow-1",
        "-o",
        "json",
        folder=tmp_path,
        **ENVIRONMENT,
        RUN_LOG_SQLITE_PATH="anew.db",
    )
    assert 3 == json.loads(stats.stdout)["total"]


def test_a_rebuild_that_is_complete(tmp_path: Path) -> None:
    """Run again, a rebuild that is complete folds nothing, says so, and how to begin anew."""
    archive(tmp_path)
    rebuild(tmp_path)

    again = rebuild(tmp_path)

    assert 0 == again.returncode
    assert "nothing was left to do; delete rebuild-anew-db-from-archive.state" in again.stderr
    assert ["events", "6"] in [line.split() for line in again.stdout.splitlines()]


def test_a_rebuild_of_an_archive_that_has_grown(tmp_path: Path) -> None:
    """Run again, a rebuild folds what is new in grown files and in new ones, and says how much it was."""
    archive(tmp_path)
    rebuild(tmp_path)
    later = encode_event(an_event(id="later")).data + b"\n"
    with (tmp_path / "archive" / "events.jsonl").open("ab") as grown:
        grown.write(later)
    (tmp_path / "archive" / "more.jsonl").write_bytes(later + encode_event(an_event(id="last")).data + b"\n")

    again = rebuild(tmp_path, "-o", "json")

    record = json.loads(again.stdout)
    assert (0, 3, 5) == (again.returncode, record["folded_now"], record["runs"])
    assert "new or changed since the last time, and brought over: 3\n" in again.stderr


@pytest.mark.parametrize("place", ["nothing", "nothing/*.jsonl", "folder"])
def test_an_archive_that_is_not_there(tmp_path: Path, place: str) -> None:
    """An archive without a file is an error that names the place, and neither state nor file is made."""
    (tmp_path / "folder").mkdir()

    ended = run_log(
        "rebuild", "--from", f"archive:{place}", "--into", "anew.db", folder=tmp_path, **ENVIRONMENT
    )

    assert (2, "") == (ended.returncode, ended.stdout)
    assert f"there is no file at {place}" in ended.stderr
    assert ["folder"] == [path.name for path in tmp_path.iterdir()]


def test_an_archive_that_is_empty(tmp_path: Path) -> None:
    """Of an archive that holds nothing a rebuild says just that, and advises nobody to switch."""
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "events.jsonl").touch()

    ended = rebuild(tmp_path)

    assert 0 == ended.returncode
    assert "is there, and holds nothing: there is nothing to switch to" in ended.stderr
    assert "to switch:" not in ended.stderr


def test_a_rebuild_that_rejects(tmp_path: Path) -> None:
    """Where something was rejected a rebuild folds the rest, exits 1, and says where to look; also again."""
    archive(tmp_path, b"junk")

    codes: list[int] = []
    for _ in range(2):
        ended = rebuild(tmp_path)
        codes.append(ended.returncode)
        assert "what was rejected, where it was and why: rebuild-anew-db-from-archive.rejects" in ended.stderr

    (kept,) = (tmp_path / "rebuild-anew-db-from-archive.rejects").read_text().splitlines()
    assert [1, 1] == codes
    assert ("archive/events.jsonl:7", "junk") == (json.loads(kept)["place"], json.loads(kept)["body"])


def test_files_that_are_named(tmp_path: Path) -> None:
    """State and rejects go where they are told, also into the archive's own folder."""
    archive(tmp_path, b"junk")
    options = ("--state", "archive/far", "--rejects", "archive/wrong")

    codes = [rebuild(tmp_path, *options).returncode for _ in range(2)]

    assert [1, 1] == codes
    assert {"events.jsonl", "far", "wrong"} == {path.name for path in (tmp_path / "archive").iterdir()}
    assert 1 == len((tmp_path / "archive" / "wrong").read_text().splitlines())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--from", "nothing"), "pass archive:PATH, subscription, or root:NAME"),
        (("--from", "archive:"), "pass archive:PATH, subscription, or root:NAME"),
        (("--from", "root:"), "pass archive:PATH, subscription, or root:NAME"),
        (("--from", "root:a", "--since", "2h"), "are about --from subscription"),
        (("--from", "archive:a", "--keep"), "are about --from subscription"),
        (("--from", "subscription", "--since", "soon"), "'soon' is no moment"),
    ],
)
def test_a_source_that_is_none(
    arguments: tuple[str, ...],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A source that is none, or an option that it has no use for, exits 2, and is told what to pass."""
    monkeypatch.setattr(sys, "argv", ["run-log", "rebuild", "--into", "x", *arguments])

    with pytest.raises(SystemExit) as ended:
        main()

    printed = capsys.readouterr()
    assert (2, "") == (ended.value.code, printed.out)
    assert told in printed.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--from", "archive:none", "--into", "x"), "there is no file at none"),
        (("--from", "root:a", "--into", "x"), "from archive files only"),
        (("--from", "archive:a", "--into", "run-log.sqlite3"), "is the live file"),
    ],
)
def test_what_cannot_be_rebuilt(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    """What a rebuild cannot be made of exits 2, says what to pass, and leaves no new projection."""
    ended = run_log("rebuild", *arguments, folder=tmp_path, **ENVIRONMENT)

    assert (2, "") == (ended.returncode, ended.stdout)
    assert told in ended.stderr
    assert not (tmp_path / "x").exists()


def test_the_live_root_is_no_destination(tmp_path: Path) -> None:
    """A rebuild into the live root collection exits 2 before anything is asked of Firestore."""
    environment = {"FIRESTORE_EMULATOR_HOST": "127.0.0.1:1", "GOOGLE_CLOUD_PROJECT": "p"}

    ended = run_log(
        "rebuild", "--from", "root:old", "--into", "autopilot_runs", folder=tmp_path, **environment
    )

    assert 2 == ended.returncode
    assert "is the live root collection (RUN_LOG_ROOT_COLLECTION)" in ended.stderr


def test_archiving_without_credentials(tmp_path: Path) -> None:
    """An archive without credentials and without an emulator exits 2 and says what to do."""
    ended = run_log("archive", "--into", "files", folder=tmp_path)

    assert (2, "") == (ended.returncode, ended.stdout)
    assert "no Google Cloud credentials" in ended.stderr
