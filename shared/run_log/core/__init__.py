"""The core: what a run and an event are, how events merge, and what a run log promises.

It does no I/O and uses no vendor's library.
"""

from .clock import utc_now
from .errors import (
    AlreadyAnsweredError,
    ConfigurationError,
    EmulatorError,
    EmulatorNotFoundError,
    EventDecodeError,
    GuessRefusedError,
    InvalidArgumentError,
    InvalidCursorError,
    InvalidRunError,
    MessageRefusedError,
    NotFoundError,
    NotPausedError,
    PortTakenError,
    PushRefusedError,
    RunExpiredError,
    RunLogError,
    RunNotFoundError,
    SpoolError,
    StoreError,
    StoreUnavailableError,
    TransportError,
    TransportRefusedError,
    TransportUnavailableError,
    UnreadableRunError,
    WaitTimeoutError,
    WriteRefusedError,
)
from .events import RunEvent, Version
from .history import Transition
from .law import Outcome
from .models import PauseRequest, RunProgress, RunRef, RunStatus, TriggerType, WorkflowRun
from .protocol import RunLogProtocol
from .settings import Settings
from .steps import Step, StepStatus
from .wire import DeadLetterReason, Message, ReceivedMessage, decode_event, encode_event

__all__ = [
    "AlreadyAnsweredError",
    "ConfigurationError",
    "DeadLetterReason",
    "EmulatorError",
    "EmulatorNotFoundError",
    "EventDecodeError",
    "GuessRefusedError",
    "InvalidArgumentError",
    "InvalidCursorError",
    "InvalidRunError",
    "Message",
    "MessageRefusedError",
    "NotFoundError",
    "NotPausedError",
    "Outcome",
    "PauseRequest",
    "PortTakenError",
    "PushRefusedError",
    "ReceivedMessage",
    "RunEvent",
    "RunExpiredError",
    "RunLogError",
    "RunLogProtocol",
    "RunNotFoundError",
    "RunProgress",
    "RunRef",
    "RunStatus",
    "Settings",
    "SpoolError",
    "Step",
    "StepStatus",
    "StoreError",
    "StoreUnavailableError",
    "Transition",
    "TransportError",
    "TransportRefusedError",
    "TransportUnavailableError",
    "TriggerType",
    "UnreadableRunError",
    "Version",
    "WaitTimeoutError",
    "WorkflowRun",
    "WriteRefusedError",
    "decode_event",
    "encode_event",
    "utc_now",
]
