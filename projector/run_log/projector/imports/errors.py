"""What ends the reading of one row, and of nothing else."""

from __future__ import annotations


class LeftOut(Exception):  # noqa: N818 - an outcome, not a fault
    """Something that is not imported.

    Args:
        reason: Why, in words that are the same for all that are left out for it, so that they are counted.
        detail: What exactly; empty for nothing.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class UnreadableValueError(Exception):
    """A value of a row cannot be read, or only by running code that the database names."""
