from __future__ import annotations

from pathlib import Path

import pytest

from run_log.console.checks import Verdict
from run_log.console.work.doctor import examine, failed
from run_log.core import RunLogError, Settings


async def test_a_file_that_is_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with a file is found, and what to do is said by itself."""
    path = tmp_path / "runs.sqlite3"
    path.write_bytes(b"a text, long enough to have a header" * 99)
    monkeypatch.setenv("RUN_LOG_BACKEND", "sqlite")
    monkeypatch.setenv("RUN_LOG_SQLITE_PATH", str(path))

    _, store = [check async for check in examine(Settings.from_env())]

    assert (Verdict.WRONG, "store") == (store.verdict, store.name)
    assert f"{path} is no database, or a damaged one" in store.found
    assert "set RUN_LOG_SQLITE_PATH to another file" in store.remedy


@pytest.mark.parametrize(
    ("error", "found", "remedy"),
    [
        ("t is not there; make it (404 no t (t))", "t is not there", "make it"),
        ("it is silent; is it up? (503 no (111))", "it is silent (503 no (111))", "is it up?"),
        ("none was seen; look at: run-log doctor", "none was seen", "look at: run-log doctor"),
        ("it refuses the call (400 why)", "it refuses the call (400 why)", ""),
    ],
)
def test_what_errors_say(error: str, found: str, remedy: str) -> None:
    """An error is told in two parts: what is wrong, with what a service said of it, and what to do."""
    check = failed("topic", RunLogError(error))

    assert (found, remedy) == (check.found, check.remedy)
