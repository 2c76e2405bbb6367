"""The Pub/Sub transport that the environment describes, where its library is installed."""

from __future__ import annotations

from run_log.core import ConfigurationError, Settings
from run_log.core.install import how_to_install

from ._transport import Transport


def pubsub_transport(settings: Settings) -> Transport:
    """Return the transport to Pub/Sub that *settings* describe.

    Raises:
        ConfigurationError: The extra ``producer`` is not installed.
    """
    try:
        from ._pubsub import create_transport  # noqa: PLC0415 - the vendor's library is an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"publishing needs {error.name}; {how_to_install('producer')}") from error
    return create_transport(settings)
