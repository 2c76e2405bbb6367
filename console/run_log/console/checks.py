"""What a look at a deployment comes to."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """What a check came to."""

    OK = "ok"
    WRONG = "wrong"
    """Something has to be done."""
    UNKNOWN = "unknown"
    """It could not be looked at, and may be fine."""
    SKIPPED = "skipped"
    """There is nothing to look at here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, and what it came to."""

    name: str
    verdict: Verdict
    found: str
    """What is there."""
    remedy: str = ""
    """What to do; empty where nothing is."""

    @property
    def record(self) -> dict[str, str]:
        """The check as JSON."""
        return {
            "check": self.name,
            "verdict": self.verdict.value,
            "found": self.found,
            "remedy": self.remedy,
        }
