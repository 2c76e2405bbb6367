"""Where Firestore is: clients, patience, and the vendor's errors as ours."""

from __future__ import annotations

import asyncio
import os
import weakref
from typing import Any, Final

from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from google.cloud import firestore
from grpc.aio import AioRpcError

from run_log.core import (
    ConfigurationError,
    RunLogError,
    Settings,
    StoreError,
    StoreUnavailableError,
    WriteRefusedError,
)
from run_log.core.ids import document_id
from run_log.core.models import RunKey

RUNS: Final = "runs"
"""The collection of run documents below each workflow's document."""

RPC_TIMEOUT_SECONDS: Final = 10.0
"""How long one call may take."""

_PROBED: Final = "run-log-probe"
"""A workflow without runs."""

_PASSING: Final = (
    google_errors.ServerError,
    google_errors.TooManyRequests,
    google_errors.Aborted,
    google_errors.Cancelled,
    google_errors.RetryError,
    auth_errors.TransportError,
    AioRpcError,
)

REFUSED_ERRORS: Final = (google_errors.Conflict, google_errors.NotFound, google_errors.FailedPrecondition)
"""A precondition did not hold, or a lock was not to be had: AlreadyExists and Aborted are both Conflicts."""

VENDOR_ERRORS: Final = (google_errors.GoogleAPIError, auth_errors.GoogleAuthError, AioRpcError)
"""What a call to Firestore may raise."""


_used_in: Final[list[int]] = []
"""The process in which a client of this module was used first."""


class Connection:
    """Firestore clients, one for each event loop: the vendor's is bound to the loop it is first used in.

    Args:
        project: Google Cloud project; None takes ``GOOGLE_CLOUD_PROJECT``, then the credentials' own.
        database: Firestore database; None is ``(default)``.

    Raises:
        ConfigurationError: There is no project, or there are no credentials.
    """

    def __init__(self, project: str | None, database: str | None) -> None:
        self._emulator = os.environ.get("FIRESTORE_EMULATOR_HOST") or None
        if self._emulator is None:
            # Set to nothing, it leads the vendor's client to an emulator at no address.
            os.environ.pop("FIRESTORE_EMULATOR_HOST", None)
        project = project or Settings.from_env().project
        if self._emulator and not project:
            raise ConfigurationError(
                "no project for the Firestore emulator; set GOOGLE_CLOUD_PROJECT to any name"
            )
        try:
            first: Any = firestore.AsyncClient(project=project, database=database)
        except auth_errors.DefaultCredentialsError as error:
            raise ConfigurationError(
                "no Google Cloud credentials; run `gcloud auth application-default login`, run as a service "
                "account, or set FIRESTORE_EMULATOR_HOST to use the emulator"
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"no Google Cloud project; set GOOGLE_CLOUD_PROJECT ({error})"
            ) from error
        self.project: str = first.project
        self.database: str = database or "(default)"
        self._credentials = None if self._emulator else first._credentials  # noqa: SLF001 - resolved once, over the network
        self._unused: list[Any] = [first]
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()

    def __str__(self) -> str:
        """Return where this leads, for error messages."""
        return f"Firestore ({self.where}, project {self.project!r}, database {self.database!r})"

    @property
    def where(self) -> str:
        """``emulator at HOST:PORT``, or ``Google Cloud``."""
        return f"emulator at {self._emulator}" if self._emulator else "Google Cloud"

    @property
    def is_emulator(self) -> bool:
        """Whether this leads to an emulator."""
        return self._emulator is not None

    @property
    def credentials(self) -> Any:
        """What calls are made with; None on an emulator."""
        return self._credentials

    def client(self) -> Any:
        """Return the running event loop's `firestore.AsyncClient`; its annotations are too loose to use.

        Raises:
            ConfigurationError: This process was forked from one that had used a client.
        """
        if not _used_in:
            _used_in.append(os.getpid())
        elif _used_in[0] != os.getpid():
            # The thread that hears of answers, and of timeouts, stayed with the parent: a call would not end.
            raise ConfigurationError(
                f"this process was forked from one that had used {self}, which gRPC's asynchronous client "
                "does not outlive; fork before the first run, start processes anew (spawn), or set "
                "RUN_LOG_BACKEND=pubsub to record in them"
            )
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._unused.pop() if self._unused else self._new_client()
            self._clients[loop] = client
        return client

    async def reach(self, root_collection: str, seconds: float) -> None:
        """Return once Firestore answers.

        Args:
            root_collection: What is read of it: a document that is not there.
            seconds: How long that may take.

        Raises:
            RunLogError: It does not, or with an error; see `error`.
        """
        document = self.client().collection(root_collection).document(_PROBED)
        try:
            await document.get(retry=None, timeout=seconds)
        except VENDOR_ERRORS as error:
            raise self.error(error) from error

    async def close(self) -> None:
        """Close the running event loop's client; those of other loops end with their loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            # close() of the vendor's asynchronous client leaves its channel open.
            await client._firestore_api.transport.close()  # noqa: SLF001

    def _new_client(self) -> Any:
        # The vendor's client reads the variable anew: what began on the emulator must not end elsewhere.
        if os.environ.get("FIRESTORE_EMULATOR_HOST") != self._emulator:
            raise ConfigurationError(f"FIRESTORE_EMULATOR_HOST has changed since {self} was chosen")
        return firestore.AsyncClient(
            project=self.project, database=self.database, credentials=self._credentials
        )

    def error(self, error: Exception) -> RunLogError:
        """Return *error*, a vendor's, as one of ours that says what to do."""
        if isinstance(error, google_errors.PermissionDenied | google_errors.Unauthenticated):
            return ConfigurationError(f"{self} denies access; grant roles/datastore.user ({error})")
        if isinstance(error, google_errors.NotFound):
            return ConfigurationError(f"{self} is not there; create it or set RUN_LOG_DATABASE ({error})")
        if isinstance(error, google_errors.FailedPrecondition):
            return ConfigurationError(f"{self} lacks an index; deploy infra/firestore.indexes.json ({error})")
        if isinstance(error, _PASSING):
            return StoreUnavailableError(f"{self} does not answer; is it up and reachable? ({error})")
        if isinstance(error, google_errors.InvalidArgument):
            return WriteRefusedError(f"{self} refuses the request for good ({error})")
        if isinstance(error, auth_errors.GoogleAuthError):
            return ConfigurationError(f"{self} does not accept the credentials ({error})")
        return StoreError(f"{self} failed ({error})")


def run_reference(client: Any, root_collection: str, key: RunKey) -> Any:
    """Return the reference of a run's document."""
    workflow_id, run_id = key
    workflow = client.collection(root_collection).document(document_id(workflow_id))
    return workflow.collection(RUNS).document(document_id(run_id))
