"""Writes an archive on one machine: messages are appended to files before they are acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import re
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from run_log.core import (
    ConfigurationError,
    ReceivedMessage,
    RunLogError,
    StoreUnavailableError,
    TransportError,
    TransportUnavailableError,
    utc_now,
)
from run_log.core.backoff import Backoff
from run_log.core.logs import get_logger
from run_log.projector.ports import MessageSource
from run_log.projector.pull import PullLimits, cancel, let_end, wait_unless
from run_log.stores.files import make_private_directory, open_unbuffered, sync_directory, write_durably

from .records import WRAPPED, wrapped

SUFFIX: Final = ".jsonl"

_OWN_BEGINNING: Final = b'{"type":'
_LINE_ENDS: Final = re.compile(rb"[\r\n]")
_BACKOFF: Final = Backoff(1.0, 30.0)
_LIMITS: Final = PullLimits()

_logger: Final = get_logger("run_log.projector")


class ArchiveWriter:
    """Appends messages to files of a folder, one on each line. Not thread-safe.

    Each writer begins a file of its own, so that nothing is written after a line that a crash cut off.
    Several writers may share a folder.

    Args:
        folder: Where the files go. It is created if it does not exist, for its owner only.
        segment_bytes: A next file begins after so many bytes.
        now: The time, for the names of files. Sorted by name, files are in the order in which they began.
    """

    def __init__(
        self, folder: Path, *, segment_bytes: int = 64 * 2**20, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._now = now
        self._file: BinaryIO | None = None

    def append(self, messages: Iterable[ReceivedMessage]) -> int:
        """Append *messages*, and return the number of lines. They are on the disk when this returns.

        A message without a body is left out.

        Raises:
            StoreUnavailableError: The disk is full, or fails. The messages have to be appended again.
            ConfigurationError: The folder cannot be written.
        """
        lines = [line for message in messages if (line := _line(message))]
        if not lines:
            return 0
        try:
            file = self._file or self._begun()
            write_durably(file, b"".join(lines))
            is_full = file.tell() >= self._segment_bytes
        except OSError as error:
            # This file may now end in the middle of a line, so the next try begins another one.
            self.close()
            if isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError | FileExistsError):
                raise ConfigurationError(f"{self._folder} cannot be written ({error})") from error
            raise StoreUnavailableError(f"{self._folder} cannot be written now ({error})") from error
        if is_full:
            self.close()
        return len(lines)

    def close(self) -> None:
        """Close the file that is open. Closing twice is fine."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _begun(self) -> BinaryIO:
        make_private_directory(self._folder)
        name = f"events-{self._now():%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:8]}{SUFFIX}"
        self._file = open_unbuffered(self._folder / name, "xb")
        # Without this a power failure could lose the file's name, and all that was acknowledged with it.
        sync_directory(self._folder)
        return self._file


def _line(message: ReceivedMessage) -> bytes:
    data = message.data
    if not data.strip():
        return b""
    # A first line with any other beginning could make the file look like another format.
    says_all = data.startswith(_OWN_BEGINNING) or (data[:1] == b"{" and "ce-type" not in message.attributes)
    if says_all and not data.startswith(WRAPPED) and _LINE_ENDS.search(data) is None:
        return data + b"\n"
    return wrapped(data, message.attributes) + b"\n"


@dataclass(slots=True, kw_only=True)
class ArchiveReport:
    """What an archive worker has done."""

    pulled: int = 0
    """Messages leased."""
    written: int = 0
    """Lines on the disk."""


class ArchiveWorker:
    """Moves messages from a source into an archive. Each is on the disk before it is acknowledged.

    After a crash at any point, what was not acknowledged is delivered again. So the archive may hold a
    message twice, and misses none.

    Args:
        source: Where messages come from.
        writer: Where they go.
        limits: How it pulls. It holds no more in hand than its pulls bring.
        sleep: Waits so many seconds.
        uniform: Returns a random number between two, to spread retries.
    """

    def __init__(
        self,
        source: MessageSource,
        writer: ArchiveWriter,
        *,
        limits: PullLimits = _LIMITS,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._source = source
        self._writer = writer
        self._limits = limits
        self._sleep = sleep
        self._uniform = uniform
        self._writing = asyncio.Lock()
        self._arrived = asyncio.Event()
        self._is_answered = False
        self._trouble: TransportUnavailableError | None = None
        self.report = ArchiveReport()

    async def run(self, *, stop: asyncio.Event, until_idle: float | None = None) -> ArchiveReport:
        """Work until *stop* is set, or until nothing has arrived for *until_idle* seconds.

        Raises:
            TransportRefusedError: The subscription does not exist, or access is denied.
            TransportUnavailableError: It became idle because the broker did not answer.
            ConfigurationError: The folder cannot be written.
            StoreUnavailableError: The disk is full, or fails.
        """
        stopping = asyncio.Event()
        wait = min(self._limits.pull_seconds, math.inf if until_idle is None else until_idle)
        ends = [asyncio.create_task(wait_unless(stop, self._idle(until_idle)))]
        pulls = [asyncio.create_task(self._pull_until(stopping, wait)) for _ in range(self._limits.pulls)]
        try:
            await asyncio.wait({*ends, *pulls}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.set()
            await let_end(pulls, self._limits.stop_seconds)
            await cancel(ends)
            done = await asyncio.gather(*ends, *pulls, return_exceptions=True)
            await asyncio.to_thread(self._writer.close)
        for failure in done:
            if isinstance(failure, Exception):
                raise failure
        if not stop.is_set() and self._trouble is not None:
            # What has not come may still be there.
            raise self._trouble
        return self.report

    async def _idle(self, seconds: float | None) -> None:
        """Return once nothing has arrived for so many seconds, and all that did is on the disk."""
        while True:
            self._arrived.clear()
            self._is_answered = False
            try:
                async with asyncio.timeout(seconds):
                    await self._arrived.wait()
            except TimeoutError:
                # A pull that is not answered yet may bring something, or fail.
                if not self._writing.locked() and (self._is_answered or self._trouble is not None):
                    return

    async def _pull_until(self, stopping: asyncio.Event, wait: float) -> None:
        failures = 0
        while not stopping.is_set():
            try:
                messages = await self._source.pull(self._limits.messages, wait=wait)
                if messages:
                    self._arrived.set()
                    # Leased messages are finished even if the worker is stopped meanwhile.
                    await _finished(asyncio.create_task(self._keep(messages)))
                failures, self._is_answered, self._trouble = 0, True, None
            except TransportUnavailableError as error:
                failures, self._trouble = failures + 1, error
                _logger.warning("run_log_pull_failed", failures=failures, error=str(error))
                await wait_unless(stopping, self._sleep(_BACKOFF.seconds(failures, self._uniform)))

    async def _keep(self, messages: Sequence[ReceivedMessage]) -> None:
        ack_ids = [message.ack_id for message in messages]
        try:
            async with self._writing:
                written = await asyncio.to_thread(self._writer.append, messages)
        except RunLogError:
            # If this fails too, they come again when their leases end.
            with contextlib.suppress(TransportError):
                await self._source.release(ack_ids)
            raise
        self.report.pulled += len(messages)
        self.report.written += written
        await self._source.acknowledge(ack_ids)


async def _finished(task: asyncio.Task[None]) -> None:
    """Wait for *task* to end, even if this wait is cancelled."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
