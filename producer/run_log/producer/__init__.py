"""What workflow authors use: record a run, or emit its state, and never notice it."""

from ._buffer import BufferLimits
from ._default import default_emitter, reset_default_emitter
from ._emitter import EmitterStats, FlushReport, RunEventEmitter
from ._recorder import RunHandle, RunRecorder, record_run
from ._service import PubSubRunLogService, create_service
from ._transport import Transport

__all__ = [
    "BufferLimits",
    "EmitterStats",
    "FlushReport",
    "PubSubRunLogService",
    "RunEventEmitter",
    "RunHandle",
    "RunRecorder",
    "Transport",
    "create_service",
    "default_emitter",
    "record_run",
    "reset_default_emitter",
]
