"""Rebuilds: all known events, folded into a new projection beside the live one."""

from .sources import FromArchive, FromRoot, FromSubscription, RebuildSource, destination
from .wiring import Rebuilt, rebuild
from .work import RebuildState, RebuildWork, RejectsFile

__all__ = [
    "FromArchive",
    "FromRoot",
    "FromSubscription",
    "RebuildSource",
    "RebuildState",
    "RebuildWork",
    "Rebuilt",
    "RejectsFile",
    "destination",
    "rebuild",
]
