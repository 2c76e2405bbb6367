"""What every rebuild has beside its source and its store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ._progress import RebuildProgress
from ._rejects import RejectsFile
from ._state import RebuildState


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
