from __future__ import annotations

import io
from pathlib import Path

import pytest
from tests.e2e.command_line import Ended

from run_log.console.work import demo as demo_module
from run_log.console.work.demo import PrintedDeadLetters, Stage, run_demo
from run_log.core import DeadLetterReason, ReceivedMessage
from run_log.stores import InMemoryRunLogService

from .processes import run_log, run_python

pytestmark = pytest.mark.process

CLOSING = "Stats equal a recount of the runs."


class _Miscounting(InMemoryRunLogService):
    """A run log that counts one run too many."""

    async def get_stats(self, workflow_id: str) -> dict[str, int]:
        stats = await super().get_stats(workflow_id)
        return {**stats, "total": stats["total"] + 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the demo ran."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def demo(home: Path) -> Ended:
    """Return how the demo ended, on a terminal of 80 columns."""
    return run_log("demo", folder=home, COLUMNS="80")


def test_what_the_demo_shows(demo: Ended) -> None:
    """The demo shows runs, stats, the inbox and a history, and says at the end that the stats are exact."""
    for run_id in ("invoice-1", "invoice-2", "invoice-3", "mail-1", "mail-2", "expense-1", "expense-2"):
        assert run_id in demo.out
    assert "emitted 16 events, delivered 16 to the topic" in demo.out
    assert "TimeoutError" in demo.out
    inbox, history = demo.out.split("Waiting for an answer")[1].split("History of expense-1")
    assert "mei@example.com" in inbox
    assert "expense-2" in inbox
    assert "expense-1" not in inbox
    statuses = [word for word in history.split() if word in {"running", "paused", "success"}]
    assert ["running", "paused", "running", "success"] == statuses
    assert CLOSING == demo.out.splitlines()[-1]
    assert max(map(len, demo.out.splitlines())) <= 80
    assert "Traceback" not in demo.out


def test_the_stats_are_those_of_the_sample(demo: Ended) -> None:
    """The demo's counts are three of three invoices, one of two mails and one of two expenses."""
    counts = demo.out.split("Workflows")[1].split("Waiting for an answer")[0].splitlines()

    rows = {tuple(line.split()[:3]) for line in counts if "/" in line}
    assert {("invoices/sync", "3", "3"), ("mails/triage", "2", "1"), ("expenses/pay", "2", "1")} == rows


def test_the_runs_outlive_the_demo(demo: Ended) -> None:
    """The demo shows what another process finds in the file that it has closed."""
    found = [line for line in demo.out.splitlines() if line.startswith("another process finds")]

    assert [
        "another process finds 3 runs of invoices/sync, 3 successful",
        "another process finds 2 runs of mails/triage, 1 successful",
        "another process finds 2 runs of expenses/pay, 1 successful",
    ] == found


def test_what_the_demo_leaves(demo: Ended, home: Path) -> None:
    """The command ends by itself with 0, says nothing on stderr and writes no file."""
    assert (0, "") == (demo.code, demo.err)
    assert [] == list(home.iterdir())


async def test_a_file_that_forgets_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process does not find the runs, the demo says so and is not exact."""
    monkeypatch.setattr(demo_module, "READ_AGAIN", "print('0 runs')")
    printed = io.StringIO()

    exact = await run_demo(printed)

    assert not exact
    assert "Another process does not find the same runs!" in printed.getvalue()


def test_a_demo_that_miscounts_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where stats differ from a recount, the demo says so and exits 1."""
    monkeypatch.setattr(demo_module, "InMemoryRunLogService", _Miscounting)

    ended = run_log("demo", folder=tmp_path)

    assert (1, "") == (ended.code, ended.err)
    assert "Stats differ from a recount of the runs!" == ended.out.splitlines()[-1]


async def test_a_dead_letter_is_shown_literally() -> None:
    """A dead letter of the demo is printed as it is, whatever its error contains."""
    printed = io.StringIO()
    message = ReceivedMessage(
        data=b"", attributes={}, ack_id="a", message_id="[red]7[/red]", delivery_attempt=1
    )

    await PrintedDeadLetters(Stage(printed)).put(
        message, reason=DeadLetterReason.UNDECODABLE, error="no [/] JSON"
    )

    assert "dead letter [red]7[/red]: undecodable: no [/] JSON\n" == printed.getvalue()


@pytest.mark.process
def test_the_demo_needs_no_network(tmp_path: Path) -> None:
    """The demo opens no connection and loads no Google library, also where the environment names both."""
    ended = run_python(
        "import socket, sys\n"
        "def refuse(*arguments):\n"
        "    raise AssertionError(f'a connection to {arguments}')\n"
        "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse\n"
        "from run_log.console import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    loaded = [name for name in sys.modules if name.split('.')[0] in ('google', 'grpc')]\n"
        "    print(loaded, file=sys.stderr)\n",
        "demo",
        folder=tmp_path,
        RUN_LOG_BACKEND="pubsub",
        PUBSUB_EMULATOR_HOST="127.0.0.1:1",
    )

    assert (0, "[]\n") == (ended.code, ended.err)
    assert CLOSING == ended.out.splitlines()[-1]
