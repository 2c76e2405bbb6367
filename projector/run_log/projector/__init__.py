"""What operators run: events in, the projection out, nothing lost and nothing counted twice."""

from run_log.core import Outcome

from .dead_letters.leased import LeasedLetters
from .dead_letters.letters import DeadLetter, LetterChoice
from .dead_letters.redrive import HandledLetter, LetterOutcome, discard, redrive
from .group_commit import Fate, GroupCommit
from .in_hand import GroupLimits, Progress
from .ports import DeadLetters, MessageSource
from .projector import Projected, Projector
from .pull import PullLimits, PullReport, PullWorker

__all__ = [
    "DeadLetter",
    "DeadLetters",
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
