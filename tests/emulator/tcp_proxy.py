"""A line to a server that a test can cut, hold up, slow down and mend."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Any, Final, Self

_CHUNK_BYTES: Final = 65_536
_PATIENCE: Final = 30.0


class TcpProxy:
    """Forwards TCP connections for as long as a ``with`` block lasts; afterwards no thread or socket is left.

    What is done to the line is done when the call returns. It holds for connections that are there and for
    new ones, and until something else is done to it.

    Args:
        target: Where to, such as ``127.0.0.1:8080``.
    """

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="tcp-proxy")
        self._started = threading.Event()
        self._end = asyncio.Event()
        self._takes_requests = asyncio.Event()
        self._gives_answers = asyncio.Event()
        self._held_requests = 0
        self._is_cut = False
        self._held_seconds = 0.0
        self._allowed = math.inf
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0)
        self._thread.start()
        assert self._started.wait(_PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections, and end."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_PATIENCE)
        assert not self._thread.is_alive()

    @property
    def host(self) -> str:
        """Where it listens, such as ``127.0.0.1:8080``."""
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    @property
    def is_holding(self) -> bool:
        """Whether a client has sent something that it does not let through."""
        return self._held_requests > 0

    def cut(self) -> None:
        """Close all connections, and every new one at once."""
        self._do(self._cut())

    def black_hole(self) -> None:
        """Leave connections open, accept new ones, and let no byte through in either direction."""
        self._do(self._become(takes_requests=False, gives_answers=False))

    def hold_answers(self) -> None:
        """Let everything through to the server, and nothing back."""
        self._do(self._become(gives_answers=False))

    def allow(self, size: int) -> None:
        """Let so many bytes through to the server, and then no more.

        Args:
            size: Bytes, from now on; a chunk that exceeds them is held up as a whole.
        """
        self._do(self._become(allowed=size))

    def delay(self, seconds: float) -> None:
        """Hold each chunk that long, while no other is read from its side of the connection.

        Args:
            seconds: For either direction.
        """
        self._do(self._become(held_seconds=seconds))

    def heal(self) -> None:
        """Let everything through, at once; what was held up goes first."""
        self._do(self._become())

    def _do(self, change: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(change, self._loop).result(_PATIENCE)

    # The thread

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._become()
        with self._listener:
            self._loop.add_reader(self._listener, self._accept)
            self._started.set()
            await self._end.wait()
            self._loop.remove_reader(self._listener)
            await _cancel(self._connections)

    async def _become(
        self,
        *,
        is_cut: bool = False,
        takes_requests: bool = True,
        gives_answers: bool = True,
        held_seconds: float = 0.0,
        allowed: float = math.inf,
    ) -> None:
        self._is_cut = is_cut
        self._allowed = allowed
        self._held_seconds = held_seconds
        for way, is_open in ((self._takes_requests, takes_requests), (self._gives_answers, gives_answers)):
            if is_open:
                way.set()
            else:
                way.clear()

    async def _cut(self) -> None:
        self._is_cut = True
        await _cancel(self._connections)
        await self._become(is_cut=True)  # not before: what was held up is lost

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # it has left again
        if self._is_cut:
            client.close()
            return
        client.settimeout(0)
        connection = asyncio.create_task(self._forward(client))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        connection.add_done_callback(lambda _: client.close())  # one cancelled before it began closes nothing

    async def _forward(self, client: socket.socket) -> None:
        with socket.socket() as server, contextlib.suppress(OSError):
            server.settimeout(0)
            await self._takes_requests.wait()
            await self._loop.sock_connect(server, self._target)
            ways = {
                asyncio.create_task(self._pump(client, server, self._takes_requests)),
                asyncio.create_task(self._pump(server, client, self._gives_answers)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _cancel(ways)

    async def _pump(self, source: socket.socket, sink: socket.socket, is_open: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while chunk := await self._loop.sock_recv(source, _CHUNK_BYTES):
                await asyncio.sleep(self._held_seconds)
                if is_open is self._takes_requests:
                    self._allowed -= len(chunk)
                    if self._allowed < 0:
                        is_open.clear()
                await self._let_through(is_open)
                await self._loop.sock_sendall(sink, chunk)

    async def _let_through(self, is_open: asyncio.Event) -> None:
        is_request = is_open is self._takes_requests
        self._held_requests += is_request
        try:
            await is_open.wait()
        finally:
            self._held_requests -= is_request


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
