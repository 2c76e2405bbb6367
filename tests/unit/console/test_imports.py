from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.e2e.command_line import called

from .processes import run_python

RUN = "from run_log.console import main; main()"
CSV = """no,state,begun,note
1,success,2026-03-04T12:00:00Z,a
2,odd,2026-03-04T12:00:00Z,b
3,failed,2026-03-04T12:00:00Z,c
"""
OPTIONS = ("--map", "id=no", "--map", "status=state", "--map", "started_at=begun", "--set", "workflow_id=w")


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """Return the environment of a run log in a file that is not there."""
    (tmp_path / "runs.csv").write_text(CSV, encoding="utf-8")
    return {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(tmp_path / "run-log.db"), "COLUMNS": "80"}


def test_a_dry_run_shows_what_would_be_imported(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """A dry run shows counts, reasons with places, the first runs and unused columns, and makes nothing."""
    ended = called(
        "import", "csv", "runs.csv", *OPTIONS, "--dry-run", folder=tmp_path, environment=environment
    )

    assert 1 == ended.code
    lines = [line.split() for line in ended.out.splitlines()]
    assert ["left", "out", "1"] in lines
    assert ["w", "2", "1", "1"] in lines
    assert ["3", "failed", "2026-03-04", "12:00:00", "0.0", "ms", "w"] in lines
    assert "its status is unknown (pass --status odd=STATUS)" in ended.out
    assert "line 3" in ended.out
    assert "columns that are no field (--map FIELD=COLUMN takes them): note" in ended.err
    assert "nothing is written" in ended.err
    assert [tmp_path / "runs.csv"] == [*tmp_path.iterdir()]


def test_an_import_says_what_it_did(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """An import counts what is new, and again, what is unchanged. It keeps what is left out if asked."""
    arguments = ("import", "csv", "runs.csv", *OPTIONS, "--rejects", "rejects", "-o", "json")
    first, again = (called(*arguments, folder=tmp_path, environment=environment) for _ in range(2))
    records = [json.loads(ended.out) for ended in (first, again)]

    assert [1, 1] == [first.code, again.code]
    assert [(2, 0), (0, 2)] == [(record["imported"], record["unchanged"]) for record in records]
    (left_out,) = records[0]["left_out"]
    assert (1, ["line 3"]) == (left_out["count"], left_out["first"])
    assert 1 == len((tmp_path / "rejects").read_text().splitlines())
    assert "what was left out, with place and reason: rejects" in again.err
    last = called(*arguments[:-4], "--status", "odd=success", folder=tmp_path, environment=environment)
    assert 0 == last.code
    assert "run_log_file_not_there" not in first.err
    assert f"made {tmp_path}/run-log.db" in first.err
    assert ["imported", "1"] in [line.split() for line in last.out.splitlines()]


def test_what_cannot_be_kept_is_told_once(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """However many runs have labels that cannot be kept, one line says how many."""
    lines = [
        {"workflow_id": "w", "id": str(number), "status": "success", "started_at": "2026-03-04T12:00:00Z"}
        | {"labels": {"The Key": "a"}}
        for number in range(3)
    ]
    (tmp_path / "runs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    ended = called("import", "jsonl", "runs.jsonl", folder=tmp_path, environment=environment)

    assert 0 == ended.code
    (told,) = [line for line in ended.err.splitlines() if "label" in line]
    assert told.startswith("runs with labels that cannot be kept (a run has at most 20 labels")
    assert told.endswith(": 3")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["csv", "none.csv"], 3, "there is no file none.csv"),
        (["csv", "runs.csv"], 2, "has no column 'workflow_id', it has: no, state, begun, note; pass --map"),
        (["csv", "runs.csv", "--map", "id"], 2, "--map 'id' is not FIELD=COLUMN"),
        (["csv", "runs.csv", "--set", "id="], 2, "--set 'id=' is not FIELD=VALUE"),
        (["csv", "runs.csv", "--time-format", "%Q"], 2, "--time-format '%Q' is no format of strptime"),
        (["celery", "nonsense"], 2, "that is no address of a database"),
        (["celery", "oracle+none://u:secret@h/d"], 2, "oracle+none://u:***@h/d needs a driver"),
        (["airflow", "sqlite:///none.db"], 3, "there is no file 'none.db'"),
    ],
)
def test_what_cannot_be_imported_is_an_error(
    tmp_path: Path, environment: Mapping[str, str], arguments: list[str], code: int, said: str
) -> None:
    """A wrong file, column, option or address ends with its exit code, says what to do, and makes nothing."""
    ended = called("import", *arguments, folder=tmp_path, environment=environment)

    assert code == ended.code
    assert said in ended.err
    assert "secret" not in ended.err
    assert [tmp_path / "runs.csv"] == [*tmp_path.iterdir()]


def test_an_import_needs_a_run_log_that_outlives_it(tmp_path: Path) -> None:
    """Without a back end that others can read, an import is refused; a dry run is not."""
    environment = {"RUN_LOG_BACKEND": "memory"}
    (tmp_path / "runs.csv").write_text(CSV.replace("odd", "failed"), encoding="utf-8")
    arguments = ("import", "csv", "runs.csv", *OPTIONS)

    assert 2 == called(*arguments, folder=tmp_path, environment=environment).code
    assert 0 == called(*arguments, "--dry-run", folder=tmp_path, environment=environment).code


@pytest.mark.process
def test_stdin_is_read(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """What comes through a pipe is imported; a pipe through which nothing comes is an error."""
    ended, empty = (
        run_python(RUN, "import", "csv", "-", *OPTIONS, folder=tmp_path, told=told, **environment)
        for told in (CSV, "")
    )

    assert (1, 2) == (ended.code, empty.code)
    assert ["imported", "2"] in [line.split() for line in ended.out.splitlines()]
    assert "- is empty: its first line has to name the columns" in empty.err
