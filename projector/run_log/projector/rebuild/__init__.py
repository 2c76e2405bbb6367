"""Rebuilds: all known events, folded into a new projection beside the live one."""

from run_log.projector.projector import MergingStore

from .folding import (
    RunPage,
    RunPages,
    UnreadableDocument,
    rebuild_from_archive,
    rebuild_from_root,
    rebuild_from_subscription,
)
from .sources import FromArchive, FromRoot, FromSubscription, RebuildSource, destination
from .wiring import Rebuilt, rebuild
from .work import RebuildProgress, RebuildState, RebuildWork, RejectsFile, reject_line

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
