"""What workflow authors use: record a run, or emit its state, and never notice it."""

from ._emitter import RunEventEmitter, default_emitter, reset_default_emitter
from ._held import BufferLimits
from ._metrics import DropReason, EmitterStats, FlushReport
from ._recorder import RunHandle, RunRecorder, current_run, record_run
from ._redaction import Redaction
from ._resume import resume_run
from ._secret_names import SECRET_NAMES
from ._service import PubSubRunLogService, create_service
from ._spool import Spool
from ._transport import DeliveryPolicy, Transport

__all__ = [
    "SECRET_NAMES",
    "BufferLimits",
    "DeliveryPolicy",
    "DropReason",
    "EmitterStats",
    "FlushReport",
    "PubSubRunLogService",
    "Redaction",
    "RunEventEmitter",
    "RunHandle",
    "RunRecorder",
    "Spool",
    "Transport",
    "create_service",
    "current_run",
    "default_emitter",
    "record_run",
    "reset_default_emitter",
    "resume_run",
]
