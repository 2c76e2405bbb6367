"""The checks of ``run-log doctor`` and their verdicts."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """The result of a check."""

    OK = "ok"
    WRONG = "wrong"  # something has to be done about it
    UNKNOWN = "unknown"  # it could not be checked, and may be fine
    SKIPPED = "skipped"  # it does not apply here


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check, and its result."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
    """What to do about it; empty for nothing."""

    @property
    def record(self) -> dict[str, str]:
        """The check as JSON."""
        told = {"verdict": self.verdict.value, "found": self.found, "remedy": self.remedy}
        return {"check": self.name, **told}
