"""Every error that run-log raises. A caller can catch exactly what it handles.

The tree::

    RunLogError
    ├── ConfigurationError            a setting, a project, credentials or a back end is missing or wrong
    ├── InvalidArgumentError          a caller's argument (also a ValueError)
    │   ├── InvalidCursorError        a cursor that is malformed or belongs to another listing
    │   ├── InvalidRunError           an object that is not a run
    │   ├── NotFoundError             nothing has the given name or id
    │   │   └── RunNotFoundError      a run
    │   └── NotPausedError            a run that was to be answered is not paused
    │       └── AlreadyAnsweredError  somebody else has answered the pause that was to be answered
    ├── EventDecodeError              a message that is not an event of run-log (also a ValueError)
    ├── UnreadableRunError            a stored run that cannot be read back
    ├── StoreError                    the store failed a read or a write
    │   ├── StoreUnavailableError     transient: the same call may succeed later
    │   │   └── GuessRefusedError     others wrote the same documents, again and again
    │   ├── WaitTimeoutError          the awaited change was not seen in time (also a TimeoutError)
    │   └── WriteRefusedError         final: the store will never accept this write
    │       └── RunExpiredError       an event of a run that has outlived its retention
    ├── SpoolError                    the spool directory cannot be read or written
    ├── TransportError                the message transport failed a publish or a pull
    │   ├── TransportUnavailableError transient: the same call may succeed later
    │   ├── TransportRefusedError     final: nothing will change until somebody acts
    │   └── MessageRefusedError       final: one of these messages will never be accepted
    ├── PushRefusedError              a push request that is not authorized
    └── EmulatorError                 an emulator of the testing kit does not start or obey
        ├── EmulatorNotFoundError     this machine has no emulator, or no Java
        └── PortTakenError            another process has the port
"""

from __future__ import annotations

# The cause may quote the document, which may be of any length.
_MAX_CAUSE = 1_000


class RunLogError(Exception):
    """The root of every error that run-log raises."""


class ConfigurationError(RunLogError):
    """A setting, a project, credentials or a back end is missing or wrong. The message says what to set."""


class InvalidArgumentError(RunLogError, ValueError):
    """An argument cannot be used. The message says what is expected."""


class InvalidCursorError(InvalidArgumentError):
    """A cursor is malformed or belongs to another listing. Start again without one."""


class InvalidRunError(InvalidArgumentError):
    """An object that was given as a run does not have a run's fields. The message names each one at fault."""


class NotFoundError(InvalidArgumentError):
    """A run, a workflow, a dead letter or a file is not there."""


class RunNotFoundError(NotFoundError):
    """A run, `workflow_id` and `run_id`, was never recorded here, is not projected yet, or has expired."""

    def __init__(self, workflow_id: str, run_id: str) -> None:
        super().__init__(
            f"there is no run {run_id!r} of workflow {workflow_id!r}: it is not there yet, or has expired"
        )
        self.workflow_id = workflow_id
        self.run_id = run_id


class NotPausedError(InvalidArgumentError):
    """A run that was to be answered is not paused, or no longer. The message states its status."""


class AlreadyAnsweredError(NotPausedError):
    """The pause that was to be answered is not the run's newest state any more.

    `answered_by` is who answered it; None where that is not known.
    """

    def __init__(self, message: str, *, answered_by: str | None) -> None:
        super().__init__(message)
        self.answered_by = answered_by


class EventDecodeError(RunLogError, ValueError):
    """A message is not an event that this version understands. `reason` is a `DeadLetterReason`'s value."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnreadableRunError(RunLogError):
    """A stored run, `workflow_id` and `run_id`, cannot be read back."""

    def __init__(self, workflow_id: str, run_id: str, cause: str) -> None:
        super().__init__(
            f"run {run_id!r} of workflow {workflow_id!r} is stored in a form that cannot be read "
            f"({cause[:_MAX_CAUSE]}); "
            "save it again or publish its newest event; if that is refused, repair or delete the document"
        )
        self.workflow_id = workflow_id
        self.run_id = run_id


class StoreError(RunLogError):
    """The store failed a read or a write."""


class StoreUnavailableError(StoreError):
    """The store did not answer, or refused the call for now. Whether anything was written is unknown."""


class GuessRefusedError(StoreUnavailableError):
    """The store holds another state than was assumed. Raised only if retries do not help in time."""


class WaitTimeoutError(StoreError, TimeoutError):
    """The awaited change was not seen in time. It may still come."""


class WriteRefusedError(StoreError):
    """The store refuses this write for good. Retries do not help."""


class RunExpiredError(WriteRefusedError):
    """An event comes too late. Its run has outlived its retention and is not revived."""


class SpoolError(RunLogError):
    """The spool directory cannot be read or written. Its events stay in memory."""


class TransportError(RunLogError):
    """The message transport failed a publish, a pull or an acknowledgement."""


class TransportUnavailableError(TransportError):
    """The transport did not answer. The same call may succeed later."""


class TransportRefusedError(TransportError):
    """The transport refuses the call until somebody acts: the topic is missing, or permission is denied."""


class MessageRefusedError(TransportError):
    """The transport refuses one message. Without it, the others of the call may be accepted."""


class PushRefusedError(RunLogError):
    """A push request is not authorized. The message says what to do; `status` is the HTTP answer's."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class EmulatorError(RunLogError):
    """An emulator did not start, or does not do what it should. The message quotes its last output."""


class EmulatorNotFoundError(EmulatorError):
    """There is no emulator, or no Java to run it. The message says where it was looked for and what to do."""


class PortTakenError(EmulatorError):
    """Another process has the port. Another port may be free."""
