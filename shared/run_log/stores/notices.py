"""Notices: what projectors and commands keep in the store for those who run it, beside the runs."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from run_log.core.logs import get_logger

MAX_DEAD_LETTERS: Final = 500
"""The most notices of dead letters that are read: the newest."""

DEAD_LETTERS_KEPT: Final = timedelta(days=7)
"""How long a dead letter is kept: the retention of its subscription, as `run-log provision` and the Terraform
module make it."""

# Built when one is needed: most processes read no notice.
_CONFIG: Final = ConfigDict(frozen=True, defer_build=True)

_logger: Final = get_logger("run_log.stores")


class NoticeKind(enum.StrEnum):
    """What a notice is of. Keys are told apart within a kind."""

    DEAD_LETTER = "dead-letters"
    VERIFICATION = "verifications"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A notice as stores keep it. It replaces the one of its kind with the same key."""

    key: str
    """Not empty."""
    at: datetime
    """When it was made; the newest are read first."""
    text: str
    """What it says, as JSON."""
    expires_at: datetime | None = None
    """From when on it is not read; None for never. The store deletes it some time after."""


class DeadLetterNotice(BaseModel):
    """A message that a projector has made a dead letter of."""

    model_config = _CONFIG

    at: AwareDatetime
    """When it did."""
    reason: str
    """Why, for programs: a value of `DeadLetterReason`, or what a newer projector says."""
    error: str
    """Why, for people: one line."""
    message_id: str
    """The id of the message; empty if it had none. `run-log dead-letters` takes it."""
    workflow_id: str | None
    """The workflow of its run; None if the message's attributes do not tell it."""
    run_id: str | None
    """Its run; None likewise."""

    def stored(self, key: str) -> Notice:
        """Return it as stores keep it."""
        return Notice(
            key=key, at=self.at, text=self.model_dump_json(), expires_at=self.at + DEAD_LETTERS_KEPT
        )


class VerifyNotice(BaseModel):
    """What `run-log verify --record` has found."""

    model_config = _CONFIG

    at: AwareDatetime
    """When it had looked at all."""
    workflow_id: str | None
    """The workflow that it looked at; None for all."""
    workflows: int
    """How many it looked at."""
    runs: int
    """How many runs it recounted."""
    repaired: int
    """In how many workflows it corrected counts."""
    differing: int
    """In how many workflows something was wrong at the end."""
    first: tuple[str, ...]
    """The first of these."""

    def stored(self) -> Notice:
        """Return it as stores keep it: the last one, for ever."""
        return Notice(key="last", at=self.at, text=self.model_dump_json())


@dataclass(frozen=True, slots=True, kw_only=True)
class Notices:
    """What those who run a run log have been told."""

    dead_letters: tuple[DeadLetterNotice, ...]
    """The newest first, `MAX_DEAD_LETTERS` at most."""
    verified: VerifyNotice | None
    """What `run-log verify --record` found last; None if it never did."""
    is_projected: bool
    """Whether projectors write into this store. Without one there are no dead letters."""


_T = TypeVar("_T", DeadLetterNotice, VerifyNotice)


def readable_notices(kind: type[_T], texts: Iterable[Any]) -> tuple[_T, ...]:
    """Return the notices that *texts* say, and log those that say none."""
    found: list[_T] = []
    for text in texts:
        try:
            found.append(kind.model_validate_json(text))
        except ValidationError as error:
            _logger.warning("run_log_unreadable_notice", kind=kind.__name__, faults=error.error_count())
    return tuple(found)
