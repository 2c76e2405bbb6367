"""``run-log dead-letters``: lists letters and handles them; gives them back however the command ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager, suppress
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
from run_log.projector.google_cloud import event_topic, leased_letters
from run_log.stores.files import open_private, sync_directory

from .opening import reached_broker

PROGRESS_SECONDS: Final = 5.0
"""Seconds between two reports of progress."""

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)

_T = TypeVar("_T")


class Progress:
    """Reports on stderr how far a command has come if it takes long.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told_at = now()

    def tell(self, how_far: Callable[[], str]) -> None:
        """Report *how_far* it is, unless the last report was a moment ago."""
        if self._now() - self._told_at >= PROGRESS_SECONDS:
            self._told_at = self._now()
            note(f"so far: {how_far()}")


class Report:
    """Counts and shows what became of letters: with one JSON object on each line at once, else at the end.

    Args:
        output: The format to print in.
        dry_run: Whether it is a dry run.
    """

    def __init__(self, output: OutputFormat, *, dry_run: bool) -> None:
        self._is_streamed = output is OutputFormat.JSONL
        self._listing: Listing[HandledLetter] = Listing(
            output,
            "dead_letters",
            table=partial(handled_table, dry_run=dry_run),
            record=partial(handled_record, dry_run=dry_run),
        )
        self._waiting: list[HandledLetter] = []
        self._counts: Counter[LetterOutcome] = Counter()
        self._ids: set[str | None] = set()
        self._dry_run = dry_run
        self._progress = Progress()

    @property
    def is_told(self) -> bool:
        """Whether any letter was reported."""
        return bool(self._ids)

    @property
    def kept(self) -> int:
        """Number of letters that were kept."""
        return self._counts[LetterOutcome.KEPT]

    def tell(self, handled: Sequence[HandledLetter]) -> None:
        """Take in what became of letters."""
        self._counts.update(one.outcome for one in handled)
        for one in handled:
            self._ids |= {one.letter.message_id, one.letter.original_id}
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
        if self.is_told:
            note(self._summary())

    def missing(self, ids: frozenset[str]) -> list[str]:
        """Return those of *ids* that were not reported."""
        return sorted(ids - self._ids)

    def _summary(self) -> str:
        counts = ", ".join(f"{count} {outcome.value}" for outcome, count in sorted(self._counts.items()))
        return f"{counts or 'none'}{' (dry run: nothing is changed)' if self._dry_run else ''}"


async def list_letters(
    choice: LetterChoice, *, limit: int | None, quiet_seconds: float, output: OutputFormat
) -> None:
    """Show dead letters, the oldest first. As one JSON object on each line, they come in any order, at once.

    Args:
        choice: Which letters.
        limit: Show at most so many; None for all.
        quiet_seconds: After so many seconds without a new letter, all are assumed to be seen.
        output: The format to print in.
    """
    is_streamed = output is OutputFormat.JSONL
    listing = Listing(output, "dead_letters", table=letters_table, record=letter_line)
    found: list[DeadLetter] = []
    is_cut = False
    progress = Progress()
    await reached_letters(Settings.from_env())
    async with leased_letters(Settings.from_env(), quiet_seconds=quiet_seconds) as letters:
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
        listing.add(sorted(found, key=_age))
    listing.end()
    if is_cut:
        note(f"{len(found)} shown, and there may be more; pass --limit or --all")


async def reached_letters(settings: Settings) -> None:
    """Wait until Pub/Sub answers that the subscription of the dead letters exists. See `reached_broker`."""
    await reached_broker(settings, subscription=settings.dead_letter_topic)


async def find_letter(message_id: str, *, quiet_seconds: float) -> DeadLetter:
    """Return a dead letter.

    Args:
        message_id: The id of the letter, or of the message that became it.
        quiet_seconds: After so many seconds without a new letter, all are assumed to be seen.

    Raises:
        NotFoundError: There is no such letter.
        InvalidArgumentError: The message became several letters.
    """
    await reached_letters(Settings.from_env())
    async with leased_letters(Settings.from_env(), quiet_seconds=quiet_seconds) as letters:
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
    """Publish dead letters again, and show what became of them.

    Args:
        choice: Which letters.
        repaired: A body to publish instead of the letter's; None publishes the letter's.
        earlier: How far ahead the clock was that stamped letters with the reason ``clock_ahead``.
        dry_run: Whether to change nothing.
        quiet_seconds: After so many seconds without a new letter, all are assumed to be seen.
        output: The format to print in.

    Raises:
        InvalidArgumentError: *repaired* is not an event.
        NotFoundError: An id is not that of a letter.
        Exit: Some letters are kept.
    """
    settings = Settings.from_env()
    await reached_letters(settings)
    with _reported(choice, output, dry_run=dry_run) as report:
        async with (
            event_topic(settings) as publish,
            leased_letters(settings, quiet_seconds=quiet_seconds) as letters,
        ):
            try:
                await redrive(
                    letters,
                    publish,
                    choice,
                    tell=report.tell,
                    repaired=repaired,
                    earlier=earlier,
                    dry_run=dry_run,
                )
            except EventDecodeError as error:
                raise InvalidArgumentError(f"the file in --body is not an event: {error}") from error


async def discard_letters(
    choice: LetterChoice, *, into: Path | None, dry_run: bool, quiet_seconds: float, output: OutputFormat
) -> None:
    """Throw dead letters away, and show which.

    Args:
        choice: Which letters.
        into: The file to append them to first; None for none.
        dry_run: Whether to change nothing.
        quiet_seconds: After so many seconds without a new letter, all are assumed to be seen.
        output: The format to print in.

    Raises:
        ConfigurationError: The file cannot be written.
        NotFoundError: An id is not that of a letter.
    """
    await reached_letters(Settings.from_env())
    with _reported(choice, output, dry_run=dry_run) as report, saving(None if dry_run else into) as save:
        async with leased_letters(Settings.from_env(), quiet_seconds=quiet_seconds) as letters:
            await discard(letters, choice, tell=report.tell, save=save, dry_run=dry_run)


def agree_to_discard_all(*, into: Path | None, yes: bool) -> None:
    """Ask at the terminal whether to throw away all dead letters.

    Args:
        into: The file that keeps them; None for none.
        yes: Whether ``--yes`` was given; then nothing is asked.

    Raises:
        InvalidArgumentError: There is no terminal to ask at.
        Exit: The answer is not yes.
    """
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

    Args:
        path: The file. If it does not exist it is created, and only its owner can read it. None writes
            nothing.

    Raises:
        ConfigurationError: It cannot be written.
    """
    if path is None:
        yield lambda _letters: None
        return
    with _writing(path):
        file = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def save(letters: Sequence[DeadLetter]) -> None:
        lines = "".join(f"{json_text(letter_record(letter))}\n" for letter in letters)
        with _writing(path):
            before = os.fstat(file).st_size
            try:
                left = memoryview(lines.encode("ascii"))
                while left:
                    left = left[os.write(file, left) :]
                os.fsync(file)
            except OSError:
                # Half a line would corrupt the next one.
                with suppress(OSError):
                    os.ftruncate(file, before)
                raise

    try:
        with _writing(path):
            sync_directory(path.absolute().parent)
        yield save
    finally:
        os.close(file)


async def stoppable(work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of *work*. SIGTERM cancels it as Ctrl-C does, so that it can give back its leases.

    Raises:
        Exit: SIGTERM ended it.
    """
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
        if report.is_told:
            # The letters reported so far are handled, whatever happened after.
            report.show()
        raise
    report.show()
    if missing := report.missing(choice.ids):
        raise _not_found(missing)
    if report.kept:
        raise typer.Exit(ExitCode.FAILED)


@contextmanager
def _writing(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as fault:
        raise ConfigurationError(f"cannot write {path}: {fault.strerror}; pass another file") from fault


def _age(letter: DeadLetter) -> tuple[datetime, str]:
    return letter.published_at or _LONG_AGO, letter.message_id


def _not_found(ids: Sequence[str]) -> NotFoundError:
    named = ", ".join(map(repr, ids))
    return NotFoundError(f"there is no dead letter {named}, or another command has leased it; try again")
