"""What workflow authors use: record a run, or emit its state, and never notice it."""

from ._emitter import RunEventEmitter, default_emitter, reset_default_emitter
from ._functions import step
from ._handle import RunHandle, current_run
from ._join import JoinedRun, join_run
from ._metrics import EmitterStats, FlushReport
from ._recorder import record_run
from ._redaction import Redaction
from ._resume import resume_run
from ._service import PubSubRunLogService, create_service
from ._steps import StepHandle, current_step

__all__ = [
    "EmitterStats",
    "FlushReport",
    "JoinedRun",
    "PubSubRunLogService",
    "Redaction",
    "RunEventEmitter",
    "RunHandle",
    "StepHandle",
    "create_service",
    "current_run",
    "current_step",
    "default_emitter",
    "join_run",
    "record_run",
    "reset_default_emitter",
    "resume_run",
    "step",
]
