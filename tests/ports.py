"""Ports for servers of a test's own."""

from __future__ import annotations

import secrets
import socket


def unused_port() -> int:
    """Return a free port of 127.0.0.1 below those that Linux gives out: nobody takes it by chance."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
