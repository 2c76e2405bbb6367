"""How often a topic misbehaves, and the seeded random choice of when."""

from __future__ import annotations

import random
from collections.abc import MutableSequence
from dataclasses import dataclass, fields
from typing import Any, Final

from run_log.core import InvalidArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often a topic misbehaves. Each field is a probability from 0 (never) to 1 (always).

    Raises:
        InvalidArgumentError: A field is not within 0 to 1.
    """

    duplicate: float = 0
    """A published message arrives twice, the second time with another message id."""
    reorder: float = 0
    """A pull returns messages in shuffled order."""
    delay: float = 0
    """A pull holds a message back for a later pull, at most three times for one message."""
    fail: float = 0
    """A publish takes nothing and raises `TransportUnavailableError`."""

    def __post_init__(self) -> None:
        """Refuse what is not a probability."""
        for field in fields(self):
            probability = getattr(self, field.name)
            if not 0 <= probability <= 1:
                raise InvalidArgumentError(f"{field.name}={probability!r} is not a probability; pass 0 to 1")


NO_FAULTS: Final = Faults()
"""A topic without faults."""


class Chance:
    """Decides from one seed when a fault happens. Not thread-safe: the lock of its topic guards it.

    Args:
        faults: How often each fault happens. It can be assigned at any time.
        seed: The same seed and the same calls give the same answers.
    """

    def __init__(self, faults: Faults, *, seed: int) -> None:
        self.faults = faults
        self._random = random.Random(seed)  # noqa: S311  # decides faults in tests, no secret

    def duplicates(self) -> bool:
        """Return whether this message arrives twice."""
        return self._strikes(self.faults.duplicate)

    def reorders(self) -> bool:
        """Return whether this pull shuffles."""
        return self._strikes(self.faults.reorder)

    def delays(self) -> bool:
        """Return whether this message is held back."""
        return self._strikes(self.faults.delay)

    def fails(self) -> bool:
        """Return whether this publish fails."""
        return self._strikes(self.faults.fail)

    def shuffle(self, items: MutableSequence[Any]) -> None:
        """Shuffle *items* in place."""
        self._random.shuffle(items)

    def _strikes(self, probability: float) -> bool:
        return self._random.random() < probability
