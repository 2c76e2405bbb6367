"""What operators run: events in, the projection out, nothing lost and nothing counted twice."""

from run_log.core import Outcome

from ._accounts import Progress
from ._group_commit import Fate, GroupCommit, GroupLimits
from ._ports import DeadLetters, MessageSource
from ._projector import Projected, Projector
from ._pull import PullLimits, PullReport, PullWorker

__all__ = [
    "DeadLetters",
    "Fate",
    "GroupCommit",
    "GroupLimits",
    "MessageSource",
    "Outcome",
    "Progress",
    "Projected",
    "Projector",
    "PullLimits",
    "PullReport",
    "PullWorker",
]
