"""Every error this library raises, so that a caller can catch exactly as much as it handles.

The tree::

    RunLogError
    ├── ConfigurationError            a setting, a project, credentials or a back end is missing or wrong
    ├── InvalidArgumentError          a caller's argument (also a ValueError)
    │   ├── InvalidCursorError        a cursor that is malformed or belongs to another listing
    │   ├── InvalidRunError           an object that is not a run
    │   ├── NotFoundError             what was asked for by its name is not there
    │   │   └── RunNotFoundError      a run
    │   └── NotPausedError            a run that is to be answered waits for no answer
    ├── EventDecodeError              a message that is no event of ours (also a ValueError)
    ├── UnreadableRunError            a stored run that cannot be read back
    ├── StoreError                    the store's side of a read or write
    │   ├── StoreUnavailableError     passing: the same call may succeed later
    │   │   └── GuessRefusedError     others wrote the same documents, again and again
    │   ├── WaitTimeoutError          what was waited for was not seen in time (also a TimeoutError)
    │   └── WriteRefusedError         final: the store will never take this write
    │       └── RunExpiredError       the event of a run that has outlived its retention
    ├── SpoolError                    the spool directory cannot be read or written
    ├── TransportError                the message transport's side of a publish or pull
    │   ├── TransportUnavailableError passing: the same call may succeed later
    │   ├── TransportRefusedError     final: nothing will change until somebody acts
    │   └── MessageRefusedError       final: one of these messages will never be taken
    ├── PushRefusedError              a push request that is not let in
    └── EmulatorError                 an emulator of the testing kit does not start or obey
        ├── EmulatorNotFoundError     there is none on this machine, or no Java
        └── PortTakenError            somebody else has its port
"""

from __future__ import annotations

__all__ = [
    "ConfigurationError",
    "EmulatorError",
    "EmulatorNotFoundError",
    "EventDecodeError",
    "GuessRefusedError",
    "InvalidArgumentError",
    "InvalidCursorError",
    "InvalidRunError",
    "MessageRefusedError",
    "NotFoundError",
    "NotPausedError",
    "PortTakenError",
    "PushRefusedError",
    "RunExpiredError",
    "RunLogError",
    "RunNotFoundError",
    "SpoolError",
    "StoreError",
    "StoreUnavailableError",
    "TransportError",
    "TransportRefusedError",
    "TransportUnavailableError",
    "UnreadableRunError",
    "WaitTimeoutError",
    "WriteRefusedError",
]


_MAX_CAUSE = 1_000
"""Characters: what stands in a document may be of any length."""


class RunLogError(Exception):
    """Root of every error that run-log raises."""


class ConfigurationError(RunLogError):
    """A setting, a project, credentials or a back end is missing or wrong; the message says what to set."""


class InvalidArgumentError(RunLogError, ValueError):
    """A caller's argument cannot be used; the message says what is expected."""


class InvalidCursorError(InvalidArgumentError):
    """A cursor is malformed or was given out for another listing; start again without one."""


class InvalidRunError(InvalidArgumentError):
    """An object given as a run does not have a run's fields; the message lists each field at fault."""


class NotFoundError(InvalidArgumentError):
    """What was asked for by its name is not there: a run, a workflow, a dead letter, a file."""


class RunNotFoundError(NotFoundError):
    """A run is not there: it was never recorded here, it is not projected yet, or it has expired.

    Attributes:
        workflow_id: The run's workflow.
        run_id: The run's id.
    """

    def __init__(self, workflow_id: str, run_id: str) -> None:
        super().__init__(
            f"there is no run {run_id!r} of workflow {workflow_id!r}: it is not there yet, or has expired"
        )
        self.workflow_id = workflow_id
        self.run_id = run_id


class NotPausedError(InvalidArgumentError):
    """A run to be answered waits for no answer (any more); the message tells its status."""


class EventDecodeError(RunLogError, ValueError):
    """A message is no event this version understands.

    Attributes:
        reason: Machine-readable cause, one of `core.DeadLetterReason`'s values.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnreadableRunError(RunLogError):
    """A stored run cannot be read back as a run.

    Attributes:
        workflow_id: The run's workflow.
        run_id: The run's id.
    """

    def __init__(self, workflow_id: str, run_id: str, cause: str) -> None:
        super().__init__(
            f"run {run_id!r} of workflow {workflow_id!r} is stored in a form that cannot be read "
            f"({cause[:_MAX_CAUSE]}); "
            "save it again or publish its newest event; where that is refused, repair or delete the document"
        )
        self.workflow_id = workflow_id
        self.run_id = run_id


class StoreError(RunLogError):
    """The store failed a read or a write."""


class StoreUnavailableError(StoreError):
    """The store did not answer, or asked to be left alone for now; nothing is known to be written."""


class GuessRefusedError(StoreUnavailableError):
    """The store holds another state than was assumed; retried, and raised where that goes on too long."""


class WaitTimeoutError(StoreError, TimeoutError):
    """What was waited for was not seen in time; it may come later."""


class WriteRefusedError(StoreError):
    """The store refuses this write for good, whatever the number of tries."""


class RunExpiredError(WriteRefusedError):
    """An event comes too late: its run has outlived its retention, and does not come back."""


class SpoolError(RunLogError):
    """The spool directory cannot be read or written; what was to go there stays in memory."""


class TransportError(RunLogError):
    """The message transport failed a publish, a pull or an acknowledgement."""


class TransportUnavailableError(TransportError):
    """The transport did not answer; the same call may succeed later."""


class TransportRefusedError(TransportError):
    """The transport refuses the call until somebody acts (no such topic, permission denied)."""


class MessageRefusedError(TransportError):
    """The transport refuses a message as it is; the others of its call may be taken without it."""


class PushRefusedError(RunLogError):
    """A push request is not let in; the message says why, and what to do.

    Attributes:
        status: The HTTP status to answer with.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class EmulatorError(RunLogError):
    """An emulator did not start, or does not do what it was asked; the message quotes its last output."""


class EmulatorNotFoundError(EmulatorError):
    """There is no emulator, or no Java to run it; the message says what was looked at and what to do."""


class PortTakenError(EmulatorError):
    """Somebody else has the port; another one may be free."""
