"""Rebuilds: everything that is known, folded into a fresh projection beside the live one."""

from run_log.projector.merging import MergingStore

from .folding import RunPage, RunPages, UnreadableDocument, rebuild_from_root
from .from_archive import rebuild_from_archive
from .from_subscription import rebuild_from_subscription
from .progress import RebuildProgress
from .rejects import RejectsFile, reject_line
from .sources import FromArchive, FromRoot, FromSubscription, RebuildSource, destination
from .state import RebuildState
from .wiring import Rebuilt, rebuild
from .work import RebuildWork

__all__ = [
    "FromArchive",
    "FromRoot",
    "FromSubscription",
    "MergingStore",
    "RebuildProgress",
    "RebuildSource",
    "RebuildState",
    "RebuildWork",
    "Rebuilt",
    "RejectsFile",
    "RunPage",
    "RunPages",
    "UnreadableDocument",
    "destination",
    "rebuild",
    "rebuild_from_archive",
    "rebuild_from_root",
    "rebuild_from_subscription",
    "reject_line",
]
