"""What operators run: events in, the projection out, nothing lost and nothing counted twice."""

from run_log.core import Outcome

from .dead_letters._redrive import HandledLetter, LetterOutcome, discard, redrive
from .dead_letters.leased import LeasedLetters
from .dead_letters.letters import DeadLetter, LetterChoice
from .group_commit import Fate, GroupCommit
from .in_hand import Progress
from .ports import DeadLetters, EventTopic, MessageSource
from .projector import Projected, Projector
from .pull import PullLimits, PullReport, PullWorker
from .room import GroupLimits

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
