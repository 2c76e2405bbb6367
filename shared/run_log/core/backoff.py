"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# A thousand failures, an hour without an answer, would double to more than a float holds.
_MOST_DOUBLINGS: Final = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter, so that those who failed together do not return together."""

    first: float
    """Most seconds to wait after the first failure. Each further failure doubles them."""
    longest: float
    """Most seconds to wait after any number of failures."""

    def limit(self, failures: int) -> float:
        """Return the most seconds to wait after so many *failures* in a row, at least one."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))

    def seconds(
        self,
        failures: int,
        uniform: Callable[[float, float], float] = random.uniform,
        *,
        shortest: float = 0.0,
    ) -> float:
        """Return how many seconds to wait after so many *failures*: at random from *shortest* to `limit`."""
        return uniform(shortest, self.limit(failures))
