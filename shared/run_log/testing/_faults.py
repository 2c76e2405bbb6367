"""How often a topic misbehaves, and the seeded random choice of when."""

from __future__ import annotations

import random
from collections.abc import MutableSequence
from dataclasses import dataclass, fields
from typing import Any, Final

from run_log.core import InvalidArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often a topic misbehaves. Each field is a probability from 0 (never) to 1 (always)."""

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
    """Decides from one seed when a fault happens. Not thread-safe: the lock of its topic guards it."""

    def __init__(self, faults: Faults, *, seed: int) -> None:
        self.faults = faults
        self._random = random.Random(seed)  # noqa: S311  # decides faults in tests, no secret

    def strikes(self, probability: float) -> bool:
        """Return whether a fault of this probability happens now."""
        return self._random.random() < probability

    def shuffle(self, items: MutableSequence[Any]) -> None:
        """Shuffle *items* in place."""
        self._random.shuffle(items)
