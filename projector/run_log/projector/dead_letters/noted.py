"""Notices of dead letters in the store: who may only read there cannot look into the dead letters."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from typing_extensions import override

from run_log.core import DeadLetterReason, ReceivedMessage, utc_now
from run_log.core.ids import valid_text
from run_log.core.logs import get_logger
from run_log.projector.ports import DeadLetters
from run_log.projector.projector import told
from run_log.stores.notices import DeadLetterNotice, NoticeKind
from run_log.stores.ports import NoticeStore

from .letters import DeadLetter, run_of

MAX_WAITING: Final = 2_000
"""How many notices wait to be written. Of more, the oldest are left out: a kilobyte each."""

CLOSE_SECONDS: Final = 0.5
"""How long those that wait may take at the end."""

FORGET_SECONDS: Final = 5.0
"""How long a command waits until notices are removed."""

_AT_ONCE: Final = 200
_MAX_ERROR: Final = 300

_logger: Final = get_logger("run_log.projector")


class NotedDeadLetters(DeadLetters):
    """Dead letters of which the store keeps a notice each, as far as that is possible.

    A notice is written after its letter is kept. What comes meanwhile is written together, in the next
    commit. A notice that cannot be written is logged, and changes nothing else.

    Args:
        letters: Keeps the messages.
        store: Keeps the notices.
        now: The time of the notices.
    """

    def __init__(
        self, letters: DeadLetters, store: NoticeStore, *, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._letters = letters
        self._store = store
        self._now = now
        self._waiting: dict[str, DeadLetterNotice] = {}
        self._writing: asyncio.Task[None] | None = None
        self._left_out = 0

    @override
    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
        await self._letters.put(message, reason=reason, error=error)
        try:
            key = notice_key(message.message_id, message.data)
            self._waiting[key] = _notice(message, reason, error, self._now())
        except Exception as failure:  # noqa: BLE001 - the letter is kept: an error here would make it come again
            _tell_failed(1, failure)
            return
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
            self._left_out += 1
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def close(self, timeout: float = CLOSE_SECONDS) -> None:  # noqa: ASYNC109 - what is left by then is lost
        """Write what waits, within *timeout* seconds."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=timeout)
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait({self._writing})

    async def _write(self) -> None:
        notices: dict[str, DeadLetterNotice] = {}
        try:
            while self._waiting:
                notices = dict(islice(self._waiting.items(), _AT_ONCE))
                for key in notices:
                    del self._waiting[key]
                stored = [notice.stored(key) for key, notice in notices.items()]
                await self._store.put_notices(NoticeKind.DEAD_LETTER, stored)
                notices = {}
        except BaseException as error:
            # They do not wait for the store to come back: what is told of it then is what comes then.
            _tell_failed(len(notices) + len(self._waiting), error)
            self._waiting.clear()
            if not isinstance(error, Exception):
                raise
        finally:
            self._writing = None
            if self._left_out:
                left_out, self._left_out = self._left_out, 0
                _logger.warning("run_log_notices_left_out", notices=left_out)


class LetterNotices:
    """The notices of dead letters that a command takes out.

    Args:
        opened: Opens what keeps the notices, once a letter is taken out.
    """

    def __init__(self, opened: Callable[[], Awaitable[NoticeStore]]) -> None:
        self._opened = opened
        self._store: NoticeStore | None = None
        self._has_failed = False

    async def forget(self, letters: Sequence[DeadLetter]) -> None:
        """Remove the notices of *letters*. That they stay is logged, once, and is no error."""
        if self._has_failed:
            return
        keys = [notice_key(letter.original_id or "", letter.data) for letter in letters]
        try:
            async with asyncio.timeout(FORGET_SECONDS):
                if self._store is None:
                    self._store = await self._opened()
                await self._store.remove_notices(NoticeKind.DEAD_LETTER, keys)
        except Exception as error:  # noqa: BLE001 - the letters are taken out, whatever the store says
            self._has_failed = True
            _tell_failed(len(letters), error)


def notice_key(message_id: str, body: bytes) -> str:
    """Return the key of the notice of a message: its id, or if it has none a digest of its body."""
    # What is pushed by somebody else than Pub/Sub may have no id.
    return valid_text(message_id) or f"sha256-{hashlib.sha256(body).hexdigest()}"


def _notice(
    message: ReceivedMessage, reason: DeadLetterReason, error: str, now: datetime
) -> DeadLetterNotice:
    # Not by the body: that it was decoded may be what ended other projectors.
    workflow_id, run_id = run_of(None, message.attributes)
    line = next((text for each in error.splitlines() if (text := each.strip())), "")
    return DeadLetterNotice(
        at=now,
        reason=reason.value,
        error=valid_text(line if len(line) <= _MAX_ERROR else f"{line[: _MAX_ERROR - 1]}…"),
        message_id=valid_text(message.message_id),
        workflow_id=workflow_id and valid_text(workflow_id),
        run_id=run_id and valid_text(run_id),
    )


def _tell_failed(notices: int, error: BaseException) -> None:
    _logger.warning("run_log_notices_failed", notices=notices, error=told(error))
