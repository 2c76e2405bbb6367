"""What workflow authors use: record a run, or emit its state, and never notice it."""

from ._emitter import RunEventEmitter, default_emitter, reset_default_emitter
from ._metrics import EmitterStats, FlushReport
from ._recorder import RunHandle, current_run, record_run
from ._redaction import Redaction
from ._resume import resume_run
from ._service import PubSubRunLogService, create_service

__all__ = [
    "EmitterStats",
    "FlushReport",
    "PubSubRunLogService",
    "Redaction",
    "RunEventEmitter",
    "RunHandle",
    "create_service",
    "current_run",
    "default_emitter",
    "record_run",
    "reset_default_emitter",
    "resume_run",
]
