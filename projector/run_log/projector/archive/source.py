"""An archive as a broker: its records are leased, acknowledged, and given back like messages."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from run_log.core import DeadLetterReason, ReceivedMessage
from run_log.projector.ports import DeadLetters

from .reading import ArchiveFile, ArchivePlace, ArchiveReader, Chunk

TOLD_EVERY: Final = 1.0
"""Seconds between two places that are told: each is written to a disk."""


class _Record(NamedTuple):
    file: int
    number: int
    message: ReceivedMessage
    fault: str | None


class ArchiveSource:
    """The messages of an archive, in its order. See `MessageSource`.

    What is acknowledged is told as places: everything up to there is done with, so that another source can go
    on from them. Acknowledgements come in any order, so it may have to repeat some, and never leaves one out.

    Args:
        files: The archive.
        done: By name, how far files were done with before.
        rejects: Where what is no message goes.
        told: Called with the places that are new, in order.
        finished: Called when all is done with; at once where it is already.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        files: Sequence[ArchiveFile],
        *,
        done: Mapping[str, ArchivePlace],
        rejects: DeadLetters,
        told: Callable[[Sequence[ArchivePlace]], None],
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
        self._place = (0, 0)
        self._is_exhausted = not self._reader.files
        self._first_open = 0
        self.total_files = len(files)
        """Files of the archive."""
        self.acknowledged = 0
        """Messages done with by this source."""
        if self._is_exhausted:
            finished()

    @property
    def done_files(self) -> int:
        """Files that are done with, those of before too."""
        return self.total_files - len(self._reader.files) + self._first_open

    @property
    def is_finished(self) -> bool:
        """Whether all is done with."""
        return self._is_exhausted and not self._outstanding

    async def pull(self, max_messages: int, *, wait: float) -> list[ReceivedMessage]:
        """See `MessageSource.pull`."""
        async with self._reading:
            messages = await self._handed_out(max_messages)
            while not messages and not self._is_exhausted:
                # What a cancelled call has read is read again by whoever goes on from the places told.
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

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.acknowledge`."""
        for ack_id in ack_ids:
            if self._outstanding.pop(ack_id, None) is not None:
                self.acknowledged += 1
        self._tell()

    async def release(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.release`."""
        self._waiting.extend(self._outstanding[ack_id] for ack_id in ack_ids if ack_id in self._outstanding)
        self._returned.set()

    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """See `MessageSource.extend`: a lease never ends here."""

    async def close(self) -> None:
        """Tell how far it came, and close the file under way."""
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
            self._place = (file, record.number)
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
                # Keeping it may fail, and these would be lost.
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
            places = self._new_places()
            if places:
                self._told(places)
        elif self._telling is None:
            # Nothing else may happen for long.
            self._telling = asyncio.get_running_loop().call_later(left, self._tell_now)
        if is_finished:
            self._finished()
            # Nobody need wait for more.
            self._returned.set()

    def _tell_now(self) -> None:
        self._telling = None
        self._tell(at_once=True)

    def _new_places(self) -> list[ArchivePlace]:
        """Return the places up to which all is done with, as far as they were not told before."""
        files = self._reader.files
        first = next(iter(self._outstanding.values()), None)
        ended = len(self._ends) + self._first_open if first is None else first.file
        places: list[ArchivePlace] = []
        while self._first_open < ended:
            file = files[self._first_open]
            after = self._ends.pop(self._first_open)
            places.append(ArchivePlace(file=file.name, after=after, size=file.size))
            self._first_open += 1
        if first is not None and first.number > 1:
            places.append(ArchivePlace(file=files[first.file].name, after=first.number - 1, size=None))
        elif first is None and self._place[0] >= ended and self._place[1]:
            file_number, after = self._place
            places.append(ArchivePlace(file=files[file_number].name, after=after, size=None))
        return places
