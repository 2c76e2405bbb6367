"""Failures in groups: those of one workflow with one error, whatever the numbers and ids in its text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from run_log.core import WorkflowRun

from .listings import without_payloads

MAX_FAILURES: Final = 500
"""The most failures that are grouped: the newest."""

_MAX_TEXT: Final = 300

# What tells one failure from the next of its kind. A quoted text stays, for it may be the name of a field.
# All have one mark: an id may have no letter.
_NUMBER_OR_ID: Final = re.compile(
    r"""
      \b 0x [0-9a-f]+ \b                                    # an address
    | \b [0-9a-f]{8} (?: - [0-9a-f]{4} ){3} - [0-9a-f]{12} \b  # a UUID
    | \b (?= [a-f]* [0-9] ) [0-9a-f]{8,} \b                 # a digest, or a part of one
    | \b (?= [a-z]* [0-9] ) [0-9a-z]{16,} \b                # a ULID, or a random name
    | [0-9]+ (?: [.,:][0-9]+ )*
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Failures of one workflow that differ in numbers and ids only."""

    workflow_id: str
    error_type: str | None
    """What their `error_type` is; None where they have none."""
    text: str
    """The first line of their error, in which ``#`` stands for each number and id. Empty for none."""
    count: int
    """How many there are among those that were looked at."""
    newest: WorkflowRun
    """The one that started last, without its `trigger_data` and `result`."""

    def to_json(self) -> dict[str, Any]:
        """Return the group as JSON; the run in it has no payloads."""
        return {
            "workflow_id": self.workflow_id,
            "error_type": self.error_type,
            "text": self.text,
            "count": self.count,
            "newest": without_payloads(self.newest.to_json()),
        }


def grouped(failures: Iterable[WorkflowRun]) -> list[FailureGroup]:
    """Return the groups of *failures*, which come newest first: the largest first, then the newest."""
    groups: dict[tuple[str, str | None, str], list[WorkflowRun]] = {}
    for run in failures:
        groups.setdefault((run.workflow_id, run.error_type, masked(run.error)), []).append(run)
    found = [
        FailureGroup(
            workflow_id=workflow_id, error_type=error_type, text=text, count=len(runs), newest=runs[0]
        )
        for (workflow_id, error_type, text), runs in groups.items()
    ]
    # Stable, and each group stands where its newest did.
    return sorted(found, key=lambda group: group.count, reverse=True)


def masked(error: str | None) -> str:
    """Return the first line with a text of an error, with marks for its numbers and ids; cut if long."""
    line = next((text for each in (error or "").splitlines() if (text := each.strip())), "")
    # Cut before, too: an error may be one line of many kilobytes.
    text = _NUMBER_OR_ID.sub("#", line[: 4 * _MAX_TEXT]).strip()
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"
