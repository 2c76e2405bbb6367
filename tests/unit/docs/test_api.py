from __future__ import annotations

import re
import shlex
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from tests.unit.dashboard.streaming import app_of

from run_log.core import PauseRequest, RunStatus
from run_log.core.protocol import MAX_LIMIT
from run_log.dashboard import create_app
from run_log.dashboard.api.parameters import DEFAULT_PAGE_SIZE
from run_log.dashboard.errors import KINDS
from run_log.dashboard.paths import segment_of
from run_log.dashboard.streams import StreamTimes
from run_log.stores import InMemoryRunLogService, RunLog
from run_log.testing import a_run

from .repository import blocks, one_line, read, section

API = read("docs/api.md")
COMMANDS = [line for block in blocks(API, "sh") for line in block.replace("\\\n", " ").splitlines()]


async def filled() -> RunLog:
    """Return a run log with the runs that the page asks for."""
    log = InMemoryRunLogService()
    labels = {"customer": "acme"}
    failed = a_run(workflow_id="invoices", id="run-17", status=RunStatus.FAILED, labels=labels)
    await log.save_run(failed)
    form = {"type": "object", "properties": {"eur": {"type": "number"}}}
    pause = PauseRequest(choices=("pay", "wait"), form=form)
    await log.save_run(a_run(workflow_id="expenses", id="run-18", status=RunStatus.PAUSED, pause=pause))
    return log


def request_of(command: str) -> dict[str, Any]:
    """Return the request that *command*, a call of curl, sends."""
    program, *words = shlex.split(command)
    assert "curl" == program
    request: dict[str, Any] = {"method": "GET", "headers": {}, "url": ""}
    while words:
        match words.pop(0):
            case "--get" | "--no-buffer":
                pass
            case "--header":
                name, _, value = words.pop(0).partition(": ")
                request["headers"][name] = value
            case "--data-urlencode":
                name, _, value = words.pop(0).partition("=")
                request["url"] += f"?{urlencode({name: value})}"
            case "--json":
                request |= {"method": "POST", "content": words.pop(0)}
                request["headers"]["Content-Type"] = "application/json"
            case url:
                request["url"] = f"{url}{request['url']}"
    return request


async def test_the_commands_run() -> None:
    """Each command is answered as it stands, with what the text says there is."""
    log = await filled()
    app = app_of(log, StreamTimes(longest=timedelta(0)))
    transport = httpx2.ASGITransport(app=app)
    answers: list[Any] = []
    async with httpx2.AsyncClient(transport=transport) as client:
        (waiting,), _ = await log.list_pending()
        for command in COMMANDS:
            response = await client.request(**request_of(command.replace("$version", waiting.version.text)))
            assert 200 == response.status_code, (command, response.text)
            answers.append(response)

    workflows, runs, filtered, run, summary, pending, answered, stream = answers
    assert 2 == len(workflows.json()["workflows"])
    assert ["run-17"] == [each["id"] for each in runs.json()["runs"]]
    assert ["run-17"] == [each["id"] for each in filtered.json()["runs"]]
    assert "failed" == run.json()["status"]
    assert "invoices" == summary.json()["workflow_id"]
    assert ["run-18"] == [each["id"] for each in pending.json()["pending_runs"]]
    assert {"eur": 42} == answered.json()["pause"]["values"]
    assert "event: end" in stream.text


def test_the_table_has_every_path() -> None:
    """The table has each path that can be read, and no other, and each parameter beside those of pages."""
    document = create_app(InMemoryRunLogService()).openapi()
    common = {"workflow", "run", "page_size", "page_token", "if-none-match", "last-event-id"}
    expected = {
        path.removeprefix("/api/v1"): {each["name"] for each in methods["get"].get("parameters", ())} - common
        for path, methods in document["paths"].items()
        if "get" in methods
    }
    rows = re.findall(r"^\| `(/[^`]+)` \| (.*) \|$", API, re.MULTILINE)

    assert expected == {path: set(re.findall(r"`([a-z_]+)`", text)) for path, text in rows}


def test_the_table_has_every_error() -> None:
    """The table has each error with its status, and no other."""
    rows = re.findall(r"^\| (\d+) \| `([a-z-]+)` \|", section(API, "## Errors"), re.MULTILINE)

    assert {(str(kind.status), kind.name) for kind in KINDS.values()} == set(rows)


def test_the_table_has_every_status() -> None:
    """A filter's table has each status."""
    (row,) = re.findall(r"^\| `status` \| `=` \| (.*) \|$", API, re.MULTILINE)

    assert set(RunStatus) == set(re.findall("`([a-z]+)`", row))


@pytest.mark.parametrize(("text", "segment"), [("a/b", "a~2Fb"), ("-", "~2D")])
def test_the_escapes_are_those_of_the_code(text: str, segment: str) -> None:
    """An id is escaped as the page says."""
    assert segment == segment_of(text)
    assert f"`{text}`" in API
    assert f"`{segment}`" in API


def test_the_numbers_are_those_of_the_code() -> None:
    """Sizes and times are those of the code."""
    text, times = one_line(API), StreamTimes()

    assert (50, 1_000) == (DEFAULT_PAGE_SIZE, MAX_LIMIT)
    assert "50 if it is absent or 0, never more than 1,000" in text
    assert (timedelta(seconds=15), timedelta(minutes=10)) == (times.keep_alive, times.longest)
    assert "every 15 seconds" in text
    assert "After 10 minutes" in text
