"""How much may be in hand: messages, bytes of their bodies, and what those take once they are decoded."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from .in_hand import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimits:
    """How much is projected together, and how much is in hand."""

    batch: int = 500
    """Most messages projected together."""
    batch_bytes: int = 3 * 2**20
    """Most bytes of their bodies."""
    in_flight: int = 3
    """Batches under way at a time."""
    gather_seconds: float = 0.02
    """How long messages wait for others while a batch is under way. With none under way, none waits."""
    messages: int = 2_000
    """Messages in hand at which no more should come: what is under way, and a batch that waits. A process
    that is killed keeps them from all others until their leases end."""
    data_bytes: int = 16 * 2**20
    """Bytes of their bodies at which no more should come."""
    decoded_bytes: int = 96 * 2**20
    """Most memory, as `decoded_size` estimates it, that decoded messages take, but for one alone; the others
    wait as they came."""
    deliveries: int = 45
    """Deliveries after which a message is dead-lettered untried: either it ends every projector that takes
    it, or nothing could be projected for hours. Below the 50 at which Pub/Sub itself gives it up."""


def decoded_size(body: bytes) -> int:
    """Return about how many bytes *body* takes once it is decoded: at most, for JSON.

    Of text alone that is up to four times as much, of empty objects thirty times.
    """
    return (
        4 * len(body)
        + 48 * body.count(b",")
        + 64 * (body.count(b"[") + body.count(b"{"))
        + 104 * body.count(b":")
    )


class Room:
    """What is left for more messages.

    Args:
        limits: How much is in hand at most.
        progress: What is.
    """

    def __init__(self, limits: GroupLimits, progress: Progress) -> None:
        self._limits = limits
        self._progress = progress
        self._decoded: dict[int, int] = {}
        self._decoded_bytes = self._reserved = 0

    @property
    def is_full(self) -> bool:
        """Whether no more should come."""
        limits, progress = self._limits, self._progress
        return (
            progress.in_hand >= limits.messages
            or progress.in_hand_bytes >= limits.data_bytes
            or self._decoded_bytes >= limits.decoded_bytes
        )

    @property
    def left(self) -> tuple[int, int]:
        """Messages and bytes that may still come."""
        limits, progress = self._limits, self._progress
        return (
            max(0, limits.messages - progress.in_hand),
            max(0, limits.data_bytes - progress.in_hand_bytes),
        )

    @contextmanager
    def reserving(self) -> Generator[Callable[[int], bool]]:
        """Reserve room for one body that is about to come; see `GroupCommit.reserving`."""
        mine = 0

        def has_room(size: int) -> bool:
            nonlocal mine
            others = self._reserved - mine + self._progress.in_hand_bytes
            if others and others + size > self._limits.data_bytes:
                return False
            self._reserved += size - mine
            mine = size
            return True

        try:
            yield has_room
        finally:
            self._reserved -= mine

    def decode(self, token: int, body: bytes) -> bool:
        """Count *body* as decoded from now on; return False where others have to be done with first."""
        size = decoded_size(body)
        if self._decoded_bytes and self._decoded_bytes + size > self._limits.decoded_bytes:
            return False
        self._decoded[token] = size
        self._decoded_bytes += size
        return True

    def forget(self, token: int) -> None:
        """Count a message as decoded no more, if it was."""
        self._decoded_bytes -= self._decoded.pop(token, 0)
