"""What operators run: events in, the projection out, nothing lost and nothing counted twice."""

from run_log.core import Outcome

from ._ports import DeadLetters, MessageSource
from ._projector import Projected, Projector
from ._pull import PullLimits, PullReport, PullWorker

__all__ = [
    "DeadLetters",
    "MessageSource",
    "Outcome",
    "Projected",
    "Projector",
    "PullLimits",
    "PullReport",
    "PullWorker",
]
