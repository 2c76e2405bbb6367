"""Rebuilds: everything that is known, folded into a fresh projection beside the live one."""

from run_log.projector.merging import MergingStore

from ._archive import rebuild_from_archive
from ._progress import RebuildProgress
from ._rejects import RejectsFile, reject_line
from ._root import RunPage, RunPages, UnreadableDocument, rebuild_from_root
from ._state import RebuildState
from ._subscription import rebuild_from_subscription
from ._wiring import Rebuilt, rebuild
from ._work import RebuildWork
from .sources import FromArchive, FromRoot, FromSubscription, RebuildSource, destination

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
