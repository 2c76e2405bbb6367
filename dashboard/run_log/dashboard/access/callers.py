"""Who asks, and what tells it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks."""

    name: str | None
    """Becomes `answered_by`: an e-mail address; None where nobody signs in."""
    may_answer: bool = True
    """Whether paused runs may be answered; else everything is read-only."""


Authenticate = Callable[[HTTPConnection], Awaitable[Caller]]
"""Returns who asks, or raises the ``HTTPException`` that a request is refused with."""
