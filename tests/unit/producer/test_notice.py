from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from run_log.core import TransportRefusedError, TransportUnavailableError
from run_log.producer import RunEventEmitter
from run_log.producer._metrics import say_loss
from run_log.producer._spool import Spool
from run_log.testing import a_run

from .conftest import EmitterMaker
from .transports import PATIENCE, ScriptedTransport


@pytest.fixture(autouse=True)
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing been said yet, and the notice not be turned off."""
    monkeypatch.delenv("RUN_LOG_STDERR_NOTICE", raising=False)
    monkeypatch.setattr("run_log.producer._metrics._unsaid", [True])


def test_it_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A process that loses run states says so once, with the reason and how to turn it off."""
    say_loss("there is no topic 'x'; run run-log provision")
    say_loss("something else")

    assert (
        "run-log: runs of this process are not recorded: there is no topic 'x'; run run-log provision"
        " (said once; RUN_LOG_STDERR_NOTICE=false turns this off)\n"
    ) == capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "is_on"),
    [
        *((value, False) for value in ("false", "0", "off", "No", " FALSE ")),
        *((value, True) for value in ("", "true", "1", "perhaps")),
    ],
)
def test_it_can_be_turned_off(
    value: str,
    is_on: bool,  # noqa: FBT001 - a test's parameter
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A false RUN_LOG_STDERR_NOTICE turns it off; what is no truth value does not."""
    monkeypatch.setenv("RUN_LOG_STDERR_NOTICE", value)

    say_loss("why")

    assert is_on == ("why" in capsys.readouterr().err)


def test_it_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the reason holds, it is one line of bounded length, and commands no terminal."""
    say_loss("a\nb\x1b[2J\r\u2028" + "x" * 10_000)

    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert r"a\nb\x1b[2J\r\u2028xxx" in shown
    assert len(shown) < 1_000


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8", "utf-16-le"])
def test_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stderr cannot encode is escaped."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))

    say_loss("no \U0001f4a5 \udc80")

    assert "run-log: runs of" in raw.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", [None, "no-such", 7])
def test_no_encoding(encoding: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stderr that tells no encoding there is gets ASCII."""
    written: list[str] = []
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(encoding=encoding, write=written.append))

    say_loss("no \U0001f4a5")

    assert [True] == [r"no \U0001f4a5" in line and line.isascii() for line in written]


def _closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


class _Broken(io.StringIO):
    def write(self, _text: str, /) -> int:
        raise RuntimeError


@pytest.mark.parametrize("make", [lambda: None, _closed, _Broken, object])
def test_no_stderr(make: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stderr that is missing, closed, broken or none is no error."""
    monkeypatch.setattr(sys, "stderr", make())

    say_loss("why")


def test_a_stderr_that_loses_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stderr that makes the process lose more while it is written to ends there."""
    written: list[str] = []

    class Board(io.StringIO):
        def write(self, text: str, /) -> int:
            written.append(text)
            say_loss("the board's own")
            return len(text)

    monkeypatch.setattr(sys, "stderr", Board())

    say_loss("why")

    assert len(written) == 1


def test_many_threads(capsys: pytest.CaptureFixture[str]) -> None:
    """Threads that lose runs at once say it once together."""
    threads = [threading.Thread(target=say_loss, args=(f"reason {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.process
def test_a_forked_child(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A child of a process that has said it stays silent."""
    say_loss("the parent's")
    child = os.fork()
    if not child:  # pragma: no cover - another process
        say_loss("the child's")
        (tmp_path / "done").touch()
        os._exit(0)
    os.waitpid(child, 0)

    assert (tmp_path / "done").exists()
    assert "the child's" not in capfd.readouterr().err


def test_an_outage_that_passes_is_not_said(
    emitter_to: EmitterMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is delivered after some tries is no loss."""
    emitter = emitter_to(ScriptedTransport([TransportUnavailableError("down")] * 3))

    emitter.emit(a_run())
    report = emitter.close(PATIENCE)

    assert (1, "") == (report.delivered, capsys.readouterr().err)


def test_a_refusal_is_said_while_the_process_runs(
    emitter_to: EmitterMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    """What somebody has to mend is said at the first refusal, not at the end of a server."""
    emitter = emitter_to(ScriptedTransport([TransportRefusedError("there is no topic; make it")]))

    emitter.emit(a_run())
    report = emitter.flush_sync(PATIENCE)

    assert 1 == report.delivered
    assert "there is no topic; make it" in capsys.readouterr().err


def test_what_is_emitted_after_the_end_is_said_later(
    capsys: pytest.CaptureFixture[str], emitter: RunEventEmitter
) -> None:
    """A run lost on the workflow's own thread costs it no write to a terminal: the next close says it."""
    emitter.close(PATIENCE)

    emitter.emit(a_run())
    before = capsys.readouterr().err
    emitter.close(PATIENCE)

    assert "" == before
    assert "emitted after its emitter was closed" in capsys.readouterr().err


def test_a_spool_that_cannot_be_used_is_said_with_what_it_lost(
    tmp_path: Path, emitter_to: EmitterMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a spool directory should have kept is said with both reasons: the outage's and the directory's."""
    (tmp_path / "file").touch()
    spool = Spool(tmp_path / "file" / "spool")
    emitter = emitter_to(ScriptedTransport([TransportUnavailableError("down")] * 10_000), spool=spool)

    emitter.emit(a_run())
    while not emitter.is_failing:
        emitter.flush_sync(0.01)
    emitter.close(0)

    said = capsys.readouterr().err
    assert "1 of their states were not delivered in time: down; the spool directory " in said
    assert "make it writable, free space, or set RUN_LOG_SPOOL_DIR to another one" in said
