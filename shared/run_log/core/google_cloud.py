"""Where one of Google's services is, which project is meant, and what its calls are made with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .errors import ConfigurationError


class GoogleCloud:
    """One service of a project's Google Cloud, or the emulator that a variable names.

    Args:
        name: What the service is called in messages.
        project: None takes the credentials' own.
        variable: Names the emulator.
        find_credentials: Returns the credentials and their project, as ``google.auth.default`` does. It is
            given, for this room knows no library of Google's.
        failures: What that raises, beside `OSError`.

    Raises:
        ConfigurationError: There is no project, or there are no credentials.
    """

    def __init__(
        self,
        name: str,
        project: str | None,
        *,
        variable: str,
        find_credentials: Callable[[], Any],
        failures: tuple[type[Exception], ...],
    ) -> None:
        self._name = name
        self.emulator = os.environ.get(variable) or None
        """``HOST:PORT``; None is Google Cloud itself."""
        self.credentials: Any = None
        """What calls are made with; None on an emulator."""
        # Read once: what was chosen on the emulator must never go on to production.
        if self.emulator is None:
            failed: tuple[type[Exception], ...] = (*failures, OSError)
            try:
                self.credentials, own = find_credentials()
            except failed as error:
                raise ConfigurationError(
                    "no Google Cloud credentials; run `gcloud auth application-default login`, run as a "
                    f"service account, or set {variable} to use the emulator ({error})"
                ) from error
            project = project or own
        if not project:
            any_name = " to any name, for the emulator" if self.emulator else ""
            raise ConfigurationError(f"no Google Cloud project; set GOOGLE_CLOUD_PROJECT{any_name}")
        self.project: str = project

    def __str__(self) -> str:
        """Return where this leads, for error messages."""
        return f"{self._name} ({self.where}, project {self.project!r})"

    @property
    def where(self) -> str:
        """``emulator at HOST:PORT``, or ``Google Cloud``."""
        return f"emulator at {self.emulator}" if self.emulator else "Google Cloud"

    @property
    def is_emulator(self) -> bool:
        """Whether this leads to an emulator."""
        return self.emulator is not None
