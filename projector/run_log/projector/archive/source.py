"""An archive as a message source: its records are leased, acknowledged and given back like messages."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from typing_extensions import override

from run_log.core import DeadLetterReason, ReceivedMessage
from run_log.projector.ports import DeadLetters, MessageSource

from .reading import ArchiveFile, ArchivePosition, ArchiveReader, Chunk

TOLD_EVERY: Final = 1.0
"""Least seconds between two reports of positions. Each report is written to a disk."""


class _Record(NamedTuple):
    file: int
    number: int
    message: ReceivedMessage
    fault: str | None


class ArchiveSource(MessageSource):
    """The messages of an archive, in order. See `MessageSource`.

    Everything up to a reported position is done, and another source can go on from there. It may repeat some
    messages, as acknowledgements come in any order; it misses none.

    *done* is how far each file was done before, by name; *rejects* keeps records that are not messages.
    *told* is called with the new positions, in order, and *finished* when all is done; at once if it is
    already.
    """

    def __init__(
        self,
        files: Sequence[ArchiveFile],
        *,
        done: Mapping[str, ArchivePosition],
        rejects: DeadLetters,
        told: Callable[[Sequence[ArchivePosition]], None],
        finished: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = ArchiveReader(files, done)
        self._rejects = rejects
        self._told = told
        self._finished = finished
        self._now = now
        self._told_at = now()
        self._telling: asyncio.TimerHandle | None = None
        self._reading = asyncio.Lock()
        self._waiting: deque[_Record] = deque()
        self._returned = asyncio.Event()
        self._outstanding: OrderedDict[str, _Record] = OrderedDict()
        self._ends: dict[int, int] = {}
        self._position = (0, 0)
        self._is_exhausted = not self._reader.files
        self._first_open = 0
        self.total_files = len(files)
        """Number of files of the archive."""
        if self._is_exhausted:
            finished()

    @property
    def done_files(self) -> int:
        """Number of files that are done, also those that were done before."""
        return self.total_files - len(self._reader.files) + self._first_open

    @property
    def is_finished(self) -> bool:
        """Whether all messages are acknowledged."""
        return self._is_exhausted and not self._outstanding

    @override
    async def pull(self, max_messages: int, *, wait: float) -> list[ReceivedMessage]:
        async with self._reading:
            messages = await self._handed_out(max_messages)
            while not messages and not self._is_exhausted:
                # If this call is cancelled, what it has read is read again from the last positions.
                self._take(await asyncio.to_thread(self._reader.read, max_messages))
                messages = await self._handed_out(max_messages)
        if messages or self.is_finished:
            return messages
        self._returned.clear()
        try:
            async with asyncio.timeout(wait):
                await self._returned.wait()
        except TimeoutError:
            return []
        async with self._reading:
            return await self._handed_out(max_messages)

    @override
    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        for ack_id in ack_ids:
            self._outstanding.pop(ack_id, None)
        self._tell()

    @override
    async def release(self, ack_ids: Sequence[str]) -> None:
        self._waiting.extend(self._outstanding[ack_id] for ack_id in ack_ids if ack_id in self._outstanding)
        self._returned.set()

    @override
    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """Do nothing: leases never end here."""

    @override
    async def close(self) -> None:
        """Report the last positions, and close the file that is open."""
        self._tell(at_once=True)
        if self._telling is not None:
            self._telling.cancel()
        await asyncio.to_thread(self._reader.close)

    def _take(self, chunk: Chunk) -> None:
        for file, record in chunk.records:
            message = ReceivedMessage(
                data=record.data,
                attributes=record.attributes,
                message_id=f"{self._reader.files[file].name}:{record.number}",
                ack_id=f"{file}:{record.number}",
            )
            taken = _Record(file, record.number, message, record.fault)
            self._waiting.append(taken)
            self._outstanding[message.ack_id] = taken
            self._position = (file, record.number)
        self._ends.update(chunk.ends)
        self._is_exhausted = chunk.is_last
        self._tell()

    async def _handed_out(self, most: int) -> list[ReceivedMessage]:
        messages: list[ReceivedMessage] = []
        while self._waiting and len(messages) < most:
            record = self._waiting[0]
            if record.fault is None:
                messages.append(record.message)
            elif messages:
                # The put below may raise, and these messages would be lost with it.
                break
            else:
                reason = DeadLetterReason.UNDECODABLE
                await self._rejects.put(record.message, reason=reason, error=record.fault)
                del self._outstanding[record.message.ack_id]
                self._tell()
            self._waiting.popleft()
        return messages

    def _tell(self, *, at_once: bool = False) -> None:
        is_finished = self.is_finished
        left = self._told_at + TOLD_EVERY - self._now()
        if at_once or is_finished or left <= 0:
            self._told_at = self._now()
            positions = self._new_positions()
            if positions:
                self._told(positions)
        elif self._telling is None:
            # Without a timer the report would wait for the next acknowledgement, which may take long.
            self._telling = asyncio.get_running_loop().call_later(left, self._tell_now)
        if is_finished:
            self._finished()
            # A pull that waits need not wait any longer.
            self._returned.set()

    def _tell_now(self) -> None:
        self._telling = None
        self._tell(at_once=True)

    def _new_positions(self) -> list[ArchivePosition]:
        """Return the positions up to which all is done, without those reported before."""
        files = self._reader.files
        first = next(iter(self._outstanding.values()), None)
        ended = len(self._ends) + self._first_open if first is None else first.file
        positions: list[ArchivePosition] = []
        while self._first_open < ended:
            file = files[self._first_open]
            after = self._ends.pop(self._first_open)
            positions.append(ArchivePosition(file=file.name, after=after, size=file.size))
            self._first_open += 1
        if first is not None and first.number > 1:
            positions.append(ArchivePosition(file=files[first.file].name, after=first.number - 1, size=None))
        elif first is None and self._position[0] >= ended and self._position[1]:
            file_number, after = self._position
            positions.append(ArchivePosition(file=files[file_number].name, after=after, size=None))
        return positions
