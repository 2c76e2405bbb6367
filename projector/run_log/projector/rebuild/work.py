"""What every rebuild has beside its source and its store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from .progress import RebuildProgress
from .rejects import RejectsFile
from .state import RebuildState

_END: Final = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildWork:
    """One rebuild, from one source into one place."""

    state: RebuildState
    """How far it has come: where it begins, and what is noted."""
    rejects: RejectsFile
    """Where what cannot be folded goes."""
    progress: RebuildProgress
    """Told how far it has come."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends the work; what is in hand is finished, or folded again by whoever goes on."""

    @property
    def goes_on(self) -> bool:
        """Whether it was complete before: then it brings over what has come or changed since."""
        return bool(self.state.get(_END))

    @property
    def is_settled(self) -> bool:
        """Whether all that was folded has the time at which it expires."""
        return bool(self.state.get(_END).get("complete"))

    def unsettle(self) -> None:
        """Note that something more is about to be folded."""
        if self.is_settled:
            self.state.note({_END: {"complete": False}})

    def settle(self) -> None:
        """Note that all that was folded has the time at which it expires."""
        self.state.note({_END: {"complete": True}})
