"""``run-log dead-letters``: lists letters and handles them; gives them back however the command ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import typer

from run_log.console.exit_codes import ExitCode
from run_log.console.signals import call_on
from run_log.console.views.output import Listing, OutputFormat, ask, json_text, note
from run_log.console.views.records import handled_record, letter_line, letter_record
from run_log.console.views.tables import handled_table, letters_table
from run_log.core import ConfigurationError, EventDecodeError, InvalidArgumentError, NotFoundError, Settings
from run_log.projector import DeadLetter, HandledLetter, LetterChoice, LetterOutcome, discard, redrive
from run_log.projector.dead_letters.leased import LeasedLetters
from run_log.projector.google_cloud import event_topic, leased_letters
from run_log.stores.files import open_unbuffered, sync_directory, write_durably

from .opening import complete, reached_broker

# Between two reports of progress.
PROGRESS_SECONDS: Final = 5.0
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)

_T = TypeVar("_T")


class Progress:
    """Reports on stderr how far a command has come if it takes long."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told_at = now()

    def tell(self, how_far: Callable[[], str]) -> None:
        """Report *how_far* it is, unless the last report was a moment ago."""
        if self._now() - self._told_at >= PROGRESS_SECONDS:
            self._told_at = self._now()
            note(f"so far: {how_far()}")


class Report:
    """Counts and shows what became of letters: with one JSON object on each line at once, else at the end."""

    def __init__(self, output: OutputFormat, *, dry_run: bool) -> None:
        self._is_streamed = output is OutputFormat.JSONL
        self._listing: Listing[HandledLetter] = Listing(
            output,
            "dead_letters",
            table=partial(handled_table, dry_run=dry_run),
            record=partial(handled_record, dry_run=dry_run),
        )
        self._waiting: list[HandledLetter] = []
        self._dry_run = dry_run
        self._progress = Progress()
        self.counts: Counter[LetterOutcome] = Counter()
        self.ids: set[str | None] = set()

    def tell(self, handled: Sequence[HandledLetter]) -> None:
        """Take in what became of letters."""
        self.counts.update(one.outcome for one in handled)
        for one in handled:
            self.ids |= {one.letter.message_id, one.letter.original_id}
        if self._is_streamed:
            self._listing.add(handled)
        else:
            self._waiting += handled
        self._progress.tell(self._summary)

    def show(self) -> None:
        """Show what became of all letters, and the counts."""
        if not self._is_streamed:
            self._listing.add(self._waiting)
        self._listing.end()
        if self.counts:
            note(self._summary())

    def _summary(self) -> str:
        counts = ", ".join(f"{count} {outcome.value}" for outcome, count in sorted(self.counts.items()))
        return f"{counts or 'none'}{' (dry run: nothing is changed)' if self._dry_run else ''}"


async def list_letters(
    choice: LetterChoice, *, limit: int | None, quiet_seconds: float, output: OutputFormat
) -> None:
    """Show dead letters, the oldest first; as JSON lines, they come in any order, at once."""
    is_streamed = output is OutputFormat.JSONL
    listing = Listing(output, "dead_letters", table=letters_table, record=letter_line)
    found: list[DeadLetter] = []
    is_cut = False
    progress = Progress()
    async with _leased(quiet_seconds) as letters:
        async for page in letters.chosen(choice):
            fitting = page if limit is None else page[: limit - len(found)]
            if is_streamed:
                listing.add(fitting)
            # Without their bodies, which are not shown and may be large.
            found += [replace(letter, data=b"") for letter in fitting]
            progress.tell(lambda: f"{len(found)} found among {letters.seen}")  # noqa: B023 - called at once
            is_cut = len(found) == limit
            if is_cut or not listing.is_read:
                break
    if not is_streamed:
        found.sort(key=lambda letter: (letter.published_at or _LONG_AGO, letter.message_id))
        listing.add(found)
    listing.end()
    if is_cut:
        note(f"{len(found)} shown, and there may be more; pass --limit or --all")


async def reached_letters() -> None:
    """Wait until Pub/Sub answers that the subscription of the dead letters exists."""
    settings = Settings.from_env()
    await reached_broker(settings, subscription=settings.dead_letter_topic)


@asynccontextmanager
async def _leased(quiet_seconds: float) -> AsyncGenerator[LeasedLetters]:
    await reached_letters()
    async with leased_letters(Settings.from_env(), quiet_seconds=quiet_seconds) as letters:
        yield letters


async def find_letter(message_id: str, *, quiet_seconds: float) -> DeadLetter:
    """Return the dead letter with this id, or the one that the message with this id became."""
    async with _leased(quiet_seconds) as letters:
        async for page in letters.chosen(LetterChoice(ids=frozenset({message_id}))):
            for letter in page:
                return letter
    raise _not_found([message_id])


async def redrive_letters(
    choice: LetterChoice,
    *,
    repaired: bytes | None,
    earlier: timedelta,
    dry_run: bool,
    quiet_seconds: float,
    output: OutputFormat,
) -> None:
    """Publish dead letters again, and show what became of them. The arguments are those of `redrive`."""
    # The report is shown after the leases are given back: whoever reads it may take long.
    with _reported(choice, output, dry_run=dry_run) as report:
        work = partial(redrive, tell=report.tell, repaired=repaired, earlier=earlier, dry_run=dry_run)
        async with _leased(quiet_seconds) as letters, event_topic(Settings.from_env()) as publish:
            try:
                await work(letters, publish, choice)
            except EventDecodeError as error:
                raise InvalidArgumentError(f"the file in --body is not an event: {error}") from error


async def discard_letters(
    choice: LetterChoice, *, into: Path | None, dry_run: bool, quiet_seconds: float, output: OutputFormat
) -> None:
    """Throw dead letters away, and show which; append them to the file *into* first."""
    with _reported(choice, output, dry_run=dry_run) as report:
        async with _leased(quiet_seconds) as letters:
            with saving(None if dry_run else into) as save:
                await discard(letters, choice, tell=report.tell, save=save, dry_run=dry_run)


def agree_to_discard_all(*, into: Path | None, yes: bool) -> None:
    """Ask at the terminal whether to throw away all dead letters, unless *yes* was said already."""
    if yes:
        return
    stdin: Any = sys.stdin  # None where it is closed
    if stdin is None or not stdin.isatty():
        raise InvalidArgumentError(
            "discard --all throws away every dead letter, and there is no terminal to ask at; pass --yes "
            "too, or --dry-run to see them"
        )
    topic = Settings.from_env().dead_letter_topic
    left = f"Only {into} will have them" if into else "They cannot be restored"
    # Not typer.confirm: it prints to stdout, which is for results.
    ask(f"Throw away all dead letters of {topic}? {left}. [y/N]: ")
    if stdin.readline().strip().lower() not in {"y", "yes"}:
        note("nothing was thrown away")
        raise typer.Exit(ExitCode.FAILED)


@contextmanager
def saving(path: Path | None) -> Generator[Callable[[Sequence[DeadLetter]], None]]:
    """Yield a function that appends letters to a file, one JSON object on each line, durably.

    If the file does not exist it is created, and only its owner can read it. None writes nothing.
    """
    if path is None:
        yield lambda _letters: None
        return
    with _writing(path):
        file = open_unbuffered(path, "ab")

    def save(letters: Sequence[DeadLetter]) -> None:
        lines = "".join(f"{json_text(letter_record(letter))}\n" for letter in letters)
        with _writing(path):
            before = os.fstat(file.fileno()).st_size
            try:
                write_durably(file, lines.encode("ascii"))
            except OSError:
                # Half a line would corrupt the next one.
                with suppress(OSError):
                    file.truncate(before)
                raise

    with file:
        with _writing(path):
            sync_directory(path.absolute().parent)
        yield save


def complete_or_stop(work: Coroutine[Any, Any, _T]) -> _T:
    """Run *work* as `complete` does, so that it is `stoppable`."""
    return complete(stoppable(work))


async def stoppable(work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of *work*. SIGTERM cancels it as Ctrl-C does, so that it can give back its leases."""
    task = asyncio.ensure_future(work)
    is_told = False

    def on_signal() -> None:
        nonlocal is_told
        is_told = True
        task.cancel()

    # Without a handler SIGTERM would end the process at once, and its letters would stay leased.
    leave = call_on(signal.SIGTERM, on_signal)
    try:
        return await task
    except asyncio.CancelledError:
        if not is_told:
            raise
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    finally:
        leave()


@contextmanager
def _reported(choice: LetterChoice, output: OutputFormat, *, dry_run: bool) -> Generator[Report]:
    report = Report(output, dry_run=dry_run)
    try:
        yield report
    except BaseException:
        if report.counts:
            # The letters reported so far are handled, whatever happened after.
            report.show()
        raise
    report.show()
    if missing := sorted(choice.ids - report.ids):
        raise _not_found(missing)
    if report.counts[LetterOutcome.KEPT]:
        raise typer.Exit(ExitCode.FAILED)


@contextmanager
def _writing(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as fault:
        raise ConfigurationError(f"cannot write {path}: {fault.strerror}; pass another file") from fault


def _not_found(ids: Sequence[str]) -> NotFoundError:
    named = ", ".join(map(repr, ids))
    return NotFoundError(f"there is no dead letter {named}, or another command has leased it; try again")
