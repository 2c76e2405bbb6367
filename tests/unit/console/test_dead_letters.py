from __future__ import annotations

import asyncio
import base64
import io
import json
import signal
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from syrupy.assertion import SnapshotAssertion

from run_log.console.commands import dead_letters
from run_log.console.exit_codes import ExitCode
from run_log.console.views.layout import Screen, Sheet, Table
from run_log.console.views.output import OutputFormat
from run_log.console.views.records import letter_line, letter_record
from run_log.console.views.tables import handled_table, letter_sheet, letters_table
from run_log.console.work.dead_letters import (
    PROGRESS_SECONDS,
    Progress,
    Report,
    agree_to_discard_all,
    saving,
    stoppable,
)
from run_log.core import ConfigurationError, InvalidArgumentError, Message, ReceivedMessage
from run_log.projector import DeadLetter, HandledLetter, LetterOutcome
from run_log.projector.dead_letters.leased import QUIET_SECONDS
from run_log.projector.dead_letters.letters import COMPRESSED, packed
from run_log.testing import ManualClock

from .processes import run_log

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
COMMANDS = "\x1b[2J\x07\rgone\N{RIGHT-TO-LEFT OVERRIDE}[red]"
"""Text that a terminal or a console might obey."""


def a_letter(message_id: str = "4711", data: bytes = b"{", **attributes: str) -> DeadLetter:
    """Return a letter with these attributes, named as they are on the wire."""
    own = {name.replace("_", "-"): value for name, value in attributes.items()}
    return DeadLetter.from_message(
        ReceivedMessage(
            data=data,
            attributes={
                "run-log-reason": "undecodable",
                "run-log-error": "the body is not JSON: Expecting property name",
                "run-log-message-id": "17",
                **own,
            },
            message_id=message_id,
            ack_id="a",
            published_at=NOON,
        )
    )


INVALID = a_letter(
    "4712",
    b'{"type": "run-log.run-state.v1", "run": {"id": "r-1", "workflow_id": "invoices", "n": "\\u00e4"}}',
    run_log_reason="invalid_event",
    run_log_error="not an event: event_id, hlc, occurred_at missing",
    run_log_attributes_left_out="4",
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ce_id="e-1",
)
HOSTILE = a_letter(
    COMMANDS,
    json.dumps({"run": {"id": COMMANDS, "workflow_id": COMMANDS}}).encode(),
    run_log_reason=COMMANDS,
    run_log_error=COMMANDS,
    run_log_message_id=COMMANDS,
    own=COMMANDS,
)
LETTERS = [a_letter(), INVALID, a_letter("4713", b"\xff\x00\x1b[2J", run_log_error="x" * 200)]


def kept(letter: DeadLetter, why: str = "undecodable: the body is not JSON") -> HandledLetter:
    """Return that a letter is kept."""
    return HandledLetter(letter=letter, outcome=LetterOutcome.KEPT, why=why)


def redriven(letter: DeadLetter) -> HandledLetter:
    """Return that a letter is re-driven."""
    return HandledLetter(letter=letter, outcome=LetterOutcome.REDRIVEN)


def shown(view: Table | Sheet, width: int | None = 80) -> str:
    """Return what a terminal of *width* columns shows."""
    return "\n".join(view.lines(Screen(width=width)))


def test_what_terminals_show(snapshot: SnapshotAssertion) -> None:
    """The tables of dead letters look as they did, on a terminal of 80 columns."""
    handled = [redriven(INVALID), kept(LETTERS[0])]
    views: dict[str, Table | Sheet] = {
        "list": letters_table(LETTERS),
        "show text": letter_sheet(LETTERS[0]),
        "show json": letter_sheet(LETTERS[1]),
        "show bytes": letter_sheet(LETTERS[2]),
        "show hostile": letter_sheet(HOSTILE),
        "redrive": handled_table(handled, dry_run=False),
        "dry run": handled_table(handled, dry_run=True),
    }

    for name, view in views.items():
        assert snapshot(name=name) == shown(view)


def test_a_screen_of_dead_letters() -> None:
    """Five dead letters of runs with long names take at most 15 lines of 80 columns, with their headings."""
    run_id = "0688f5fb-d55a-7fff-a572-e77c53869667"
    body = {"run": {"id": run_id, "workflow_id": "invoices-europe"}}
    letters = [a_letter(str(9_876_543_210 + n), json.dumps(body).encode()) for n in range(5)]

    printed = shown(letters_table(letters)).splitlines()

    assert len(printed) <= 15
    assert max(map(len, printed)) <= 80
    assert 5 == sum(run_id in line for line in printed)


def test_all_of_a_letter_as_json() -> None:
    """The JSON of a letter has its body as JSON where it is some, and as it came in any case."""
    record = json.loads(json.dumps(letter_record(INVALID)))
    undecodable = letter_record(LETTERS[2])

    assert {
        **letter_line(INVALID),
        "delivery_attempt": 0,
        "attributes_left_out": 4,
        "attributes": {"ce-id": "e-1", "traceparent": INVALID.attributes["traceparent"]},
        "body": json.loads(INVALID.data),
        "data_base64": base64.b64encode(INVALID.data).decode(),
    } == record
    assert ("invoices", "r-1", "2026-03-04T12:00:00.000000Z") == (
        record["workflow_id"],
        record["run_id"],
        record["published_at"],
    )
    assert (None, "17") == (undecodable["body"], undecodable["original_message_id"])
    assert LETTERS[2].data == base64.b64decode(undecodable["data_base64"])


def test_a_letter_that_is_packed_and_not_whole() -> None:
    """A letter that holds its message packed is shown as that message, with what was left out of it."""
    inner = Message(data=b"no json", attributes={"run-log-reason": "its own", "b": "x"})
    letter = a_letter(
        "4714",
        packed(inner, COMPRESSED),
        run_log_reason="undecodable",
        run_log_packed=COMPRESSED,
        run_log_body_left_out="1234",
    )
    record, printed = letter_record(letter), shown(letter_sheet(letter))

    assert inner.data == base64.b64decode(record["data_base64"])
    assert (inner.attributes, 1_234) == (record["attributes"], record["body_bytes_left_out"])
    assert "1,234 bytes of the body's end" in printed
    assert "run-log-reason = its own" in printed


def test_saved_letters(tmp_path: Path) -> None:
    """Letters are appended to a file that only its owner may read, one JSON object a line."""
    path = tmp_path / "letters.jsonl"

    for page in (LETTERS[:1], LETTERS[1:]):
        with saving(path) as save:
            save(page)

    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [letter_record(letter) for letter in LETTERS] == records
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """A file that cannot be made is an error that says to name another one."""
    with pytest.raises(ConfigurationError, match="pass another file"), saving(tmp_path / "not-there" / "f"):
        raise AssertionError


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk() -> None:
    """Where the disk is full, saving fails, so that nothing is discarded."""
    with saving(Path("/dev/full")) as save, pytest.raises(ConfigurationError, match="No space left"):
        save(LETTERS)


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be made durable is taken out of the file again."""
    path = tmp_path / "letters.jsonl"
    with saving(path) as save:
        save(LETTERS[:1])
        before = path.read_bytes()

        def fail(_file: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(ConfigurationError):
            save(LETTERS[1:])
        monkeypatch.undo()

    assert before == path.read_bytes()


def test_long_work_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Work that takes long says on stderr how far it has come, now and then."""
    clock = ManualClock()
    progress = Progress(clock.monotonic)

    for number in range(5):
        progress.tell(lambda number=number: str(number))  # type: ignore[misc]
        clock.advance(PROGRESS_SECONDS / 2)

    assert ("", "so far: 2\nso far: 4\n") == capsys.readouterr()


@pytest.mark.parametrize("output", [OutputFormat.JSON, OutputFormat.JSONL])
def test_a_report_as_json(output: OutputFormat, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON says what became of each letter, and whether it really has; what else there is is on stderr."""
    report = Report(output, dry_run=True)

    report.tell([redriven(INVALID)])
    streamed = capsys.readouterr().out
    report.tell([kept(LETTERS[0])])
    report.show()

    printed = capsys.readouterr()
    out = streamed + printed.out
    records = json.loads(out)["dead_letters"] if output == "json" else [*map(json.loads, out.splitlines())]
    assert [
        ("4712", "redriven", None, True),
        ("4711", "kept", "undecodable: the body is not JSON", True),
    ] == [(record["message_id"], record["outcome"], record["why"], record["dry_run"]) for record in records]
    assert (output is OutputFormat.JSONL) is bool(streamed)
    assert "1 kept, 1 redriven (dry run: nothing is changed)\n" == printed.err
    assert (1, {"4711", "4712", "17"}) == (report.counts[LetterOutcome.KEPT], report.ids)


async def test_sigterm_has_work_end_in_order() -> None:
    """SIGTERM cancels what is under way, which has time to clean up, and the exit code says so."""
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    running = asyncio.create_task(stoppable(work()))
    await begun.wait()
    signal.raise_signal(signal.SIGTERM)

    with pytest.raises(typer.Exit) as ended:
        await running
    assert (ExitCode.INTERRUPTED, True) == (ended.value.exit_code, cleaned.is_set())


async def test_what_ends_by_itself() -> None:
    """Without a signal, work ends as it would have."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    assert 7 == await stoppable(asyncio.sleep(0, 7))
    with pytest.raises(asyncio.CancelledError):
        await stoppable(cancelled())


def test_the_option_says_what_the_library_does() -> None:
    """The default of --wait is the library's."""
    assert QUIET_SECONDS == dead_letters.QUIET_SECONDS


class Terminal(io.StringIO):
    """A terminal at which somebody types this."""

    def isatty(self) -> bool:
        """Be one."""
        return True


@pytest.mark.parametrize(
    ("typed", "into", "left", "goes_on"),
    [
        ("y\n", None, "They cannot be restored.", True),
        ("Yes\n", Path("saved"), "Only saved will have them.", True),
        ("n\n", None, "They cannot be restored.", False),
        ("\n", Path("saved"), "Only saved will have them.", False),
        ("", None, "They cannot be restored.", False),
    ],
    ids=["y", "yes", "no", "nothing", "the end"],
)
def test_discarding_all_asks(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    into: Path | None,
    left: str,
    *,
    goes_on: bool,
) -> None:
    """Whoever sits at a terminal is asked before all dead letters are discarded; only a yes goes on."""
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    question = f"Throw away all dead letters of run-log-dead-letters? {left} [y/N]: "

    if goes_on:
        agree_to_discard_all(into=into, yes=False)
        assert ("", question) == capsys.readouterr()
        return
    with pytest.raises(typer.Exit) as ended:
        agree_to_discard_all(into=into, yes=False)
    assert ExitCode.FAILED == ended.value.exit_code
    assert ("", f"{question}nothing was thrown away\n") == capsys.readouterr()


def test_discarding_all_where_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal all are discarded only where that was said twice."""
    for stdin in (io.StringIO("y\n"), None):
        monkeypatch.setattr("sys.stdin", stdin)

        with pytest.raises(InvalidArgumentError, match="pass --yes too, or --dry-run"):
            agree_to_discard_all(into=None, yes=False)
    agree_to_discard_all(into=None, yes=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["redrive"], "choose dead letters: pass ids, filters, or --all"),
        (["discard"], "choose dead letters: pass ids, filters, or --all"),
        (["redrive", "1", "--all"], "or pass --all, not both"),
        (["discard", "1", "--reason", "expired"], "or filter them, not both"),
        (["list", "--reason", "undecoded"], "'undecoded' is not a reason"),
        (["list", "--since", "yesterday"], "'yesterday' is not a moment"),
        (["redrive", "--all", "--body", __file__], "--body is for one dead letter; pass its id"),
        (["redrive", "1", "2", "--body", __file__], "--body is for one dead letter; pass its id"),
        (["redrive", "1", "--body", "not-there"], "'not-there' does not exist"),
        (["show"], "Missing argument 'MESSAGE_ID'"),
        (["list", "--wait", "0"], "--wait"),
    ],
    ids=str,
)
def test_what_is_used_wrongly(arguments: list[str], told: str, tmp_path: Path) -> None:
    """What cannot be meant exits 2 before anything is looked at, and says what can."""
    ended = run_log("dead-letters", *arguments, folder=tmp_path, PUBSUB_EMULATOR_HOST="127.0.0.1:1")

    assert (2, "") == (ended.code, ended.out)
    assert told in " ".join(ended.err.split())


@pytest.mark.parametrize(
    "command",
    [
        "dead-letters list",
        "dead-letters show 1",
        "dead-letters redrive --all",
        "dead-letters discard --all",
        "provision",
        "projector pull --until-idle 1",
    ],
)
@pytest.mark.process
def test_nobody_there(command: str, tmp_path: Path) -> None:
    """Where Pub/Sub does not answer, each command exits 5, and says where it looked."""
    ended = run_log(
        *command.split(), folder=tmp_path, PUBSUB_EMULATOR_HOST="127.0.0.1:1", GOOGLE_CLOUD_PROJECT="p"
    )

    assert (5, "") == (ended.code, ended.out)
    assert "run-log: Pub/Sub (emulator at 127.0.0.1:1" in ended.err.splitlines()[-1]
