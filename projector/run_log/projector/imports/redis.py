"""Redis of others, which is only read: the values of the keys that begin alike, page by page."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from importlib import import_module
from typing import Any, Final

from run_log.core import ConfigurationError, NotFoundError, TransportUnavailableError
from run_log.core.install import how_to_install

from .databases import PAGE

SCHEMES: Final = ("redis://", "rediss://")

_PATIENCE: Final = {"socket_connect_timeout": 10, "socket_timeout": 60}
"""Seconds to wait for a connection and for an answer, unless the address says."""

# Celery's addresses have the names of Python's constants, which Redis's library does not take.
_CERT: Final = re.compile(r"(?<=ssl_cert_reqs=)CERT_(NONE|OPTIONAL|REQUIRED)")
_PATTERN: Final = re.compile(r"([*?\[\]\\^-])")


def stored_values(url: str, prefix: str) -> Generator[tuple[str, bytes]]:
    """Yield each key that begins with *prefix*, and its value. A key that moves meanwhile may come twice.

    Raises:
        ConfigurationError: *url* is no address, or Redis's library is not installed.
        NotFoundError: There is no such key.
        TransportUnavailableError: Redis does not answer, or refuses.
    """
    try:
        redis: Any = import_module("redis")
    except ImportError as error:
        raise ConfigurationError(f"Redis needs its library: {error}; {how_to_install('import')}") from error
    try:
        pool = redis.ConnectionPool.from_url(
            _CERT.sub(lambda name: name[1].lower(), url), **_PATIENCE, decode_responses=False
        )
        pool.make_connection()  # an option that there is not is told here; nothing is sent
    except (ValueError, TypeError, redis.RedisError) as error:
        # Without the text, which may hold a password.
        raise ConfigurationError(
            "that is no address of Redis; pass one such as redis://:PASSWORD@HOST:6379/0"
        ) from error
    given = {"host": "localhost", "port": 6379, "db": 0, **pool.connection_kwargs}
    where = "redis://{host}:{port}/{db}".format_map(given)
    is_found = False
    try:
        for keys in _pages(redis.Redis(connection_pool=pool), prefix):
            for key, value in zip(*keys, strict=True):
                if value is not None:  # it has expired since, or is no text
                    is_found = True
                    yield key.decode(errors="replace"), value
    except redis.RedisError as error:
        raise TransportUnavailableError(f"{where} cannot be read ({error})") from error
    finally:
        pool.disconnect()
    if not is_found:
        raise NotFoundError(f"{where} has no key that begins with {prefix!r}; is it another database?")


def _pages(client: Any, prefix: str) -> Generator[tuple[Sequence[bytes], Sequence[bytes | None]]]:
    cursor: int | None = None
    while cursor != 0:
        cursor, keys = client.scan(cursor or 0, match=_PATTERN.sub(r"\\\1", prefix) + "*", count=PAGE)
        for start in range(0, len(keys), PAGE):
            page = keys[start : start + PAGE]
            yield page, client.mget(page)
