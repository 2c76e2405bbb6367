from __future__ import annotations

import json
from pathlib import Path

import pytest

from run_log.core import PauseRequest, RunStatus
from run_log.testing import a_run

from .files import in_file
from .processes import run_log

pytestmark = pytest.mark.process

FORM = {"type": "object", "properties": {"amount": {"type": "number"}, "note": {"type": "string"}}}
PAUSE = PauseRequest(reason="pay?", choices=("pay", "wait"), default_choice="wait", form=FORM)


def test_answers_on_the_command_line(tmp_path: Path) -> None:
    """What can be chosen and filled in is listed; an answer is checked, given once, and in the history."""
    settings = {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(tmp_path / "runs")}
    paused = a_run(workflow_id="w", id="r", status=RunStatus.PAUSED, pause=PAUSE)
    in_file(tmp_path / "runs", lambda log: log.save_run(paused))

    def call(*arguments: str) -> tuple[int | None, str, str]:
        ended = run_log("runs", *arguments, folder=tmp_path, **settings)
        return ended.code, ended.out, ended.err

    listed = json.loads(call("pending", "-o", "json")[1])["pending_runs"][0]
    assert (["pay", "wait"], FORM) == (listed["pause"]["choices"], listed["pause"]["form"])
    wide = call("pending", "--wide")[1]
    assert "pay, wait (default), amount=, note=" in wide
    assert listed["version"] in wide
    answer = ("resume", "w", "r", "--by", "ann", "--if-version", listed["version"])
    code, _, told = call(*answer, "--choice", "pay", "--value", "amount=many")
    assert (2, True) == (code, "values.amount: 'many' is not of type 'number'" in told)
    assert 2 == call(*answer, "--choice", "pay", "--value", "amount")[0]

    fine = ("--choice", "pay", "--value", "amount=4200", "--value", "note=as agreed", "--comment", "fine")
    assert (0, "", "run 'r' of workflow 'w' is running\n") == call(*answer, *fine)
    code, _, told = call("reject", "w", "r", "--by", "bob", "--if-version", listed["version"])

    assert (2, True) == (code, "is answered by 'ann'" in told)
    *_, newest = json.loads(call("history", "w", "r", "-o", "json")[1])["transitions"]
    assert ("ann", "pay", {"amount": 4200, "note": "as agreed"}, "fine") == tuple(
        newest[name] for name in ("answered_by", "choice", "values", "comment")
    )
    shown = call("history", "w", "r", "--wide")[1]
    assert all(word in shown for word in ("answered by ann", "chose pay", "amount=4200", "fine"))
    sheet = call("show", "w", "r")[1]
    assert all(word in sheet for word in ("choices", "default_choice", "values", "4200"))
