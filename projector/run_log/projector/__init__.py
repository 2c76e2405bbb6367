"""What operators run: events in, the projection out, nothing lost and nothing counted twice."""

from run_log.core import Outcome

from ._accounts import Progress
from ._group_commit import Fate, GroupCommit
from ._leased import LeasedLetters
from ._letters import DeadLetter, LetterChoice
from ._redrive import HandledLetter, LetterOutcome, discard, redrive
from ._room import GroupLimits
from .ports import DeadLetters, EventTopic, MessageSource
from .projector import Projected, Projector
from .pull import PullLimits, PullReport, PullWorker

__all__ = [
    "DeadLetter",
    "DeadLetters",
    "EventTopic",
    "Fate",
    "GroupCommit",
    "GroupLimits",
    "HandledLetter",
    "LeasedLetters",
    "LetterChoice",
    "LetterOutcome",
    "MessageSource",
    "Outcome",
    "Progress",
    "Projected",
    "Projector",
    "PullLimits",
    "PullReport",
    "PullWorker",
    "discard",
    "redrive",
]
