"""Bodies of requests: how large they may be, alone and together, and how they are unpacked."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncGenerator, Iterator
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

MAX_BODY_BYTES: Final = 16 * 2**20
"""Room for an event with thousands of data sets, or a batch, unpacked."""

MAX_BYTES_IN_HAND: Final = 4 * MAX_BODY_BYTES
"""What all bodies that are being read and recorded may take together."""

READ_SECONDS: Final = 30.0
"""How long a body may take to arrive."""

_MAX_DIGITS: Final = 18

# To zlib, gzip's header and trailer.
_WITH_HEADER: Final = 16 + zlib.MAX_WBITS


class Bodies:
    """Reads bodies of requests."""

    def __init__(self, *, read_seconds: float = READ_SECONDS) -> None:
        self._read_seconds = read_seconds
        self._in_hand = 0

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncGenerator[bytes]:
        """Yield the body of *request*, unpacked. Its room is reserved until the block is left.

        Raises:
            HTTPException: It is too large, does not arrive in time, or cannot be unpacked.
        """
        body = bytearray()
        unpacking = _unpacking(request)
        _check_length(request)
        try:
            async with asyncio.timeout(self._read_seconds):
                async for chunk in request.stream():
                    for piece in unpacking.pieces(chunk, body):
                        body += piece
                        self._in_hand += len(piece)
                        self._check(len(body))
            unpacking.check_end()
        except (TimeoutError, ClientDisconnect) as error:
            self._in_hand -= len(body)
            raise HTTPException(408, "the body did not arrive in time") from error
        except BaseException:
            self._in_hand -= len(body)
            raise
        try:
            yield bytes(body)
        finally:
            self._in_hand -= len(body)

    def _check(self, size: int) -> None:
        if size > MAX_BODY_BYTES:
            raise _too_large()
        if self._in_hand > MAX_BYTES_IN_HAND:
            raise HTTPException(503, "too much is in hand; send it again")


def _check_length(request: Request) -> None:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > _MAX_DIGITS or int(length) > MAX_BODY_BYTES):
        raise _too_large()


def _too_large() -> HTTPException:
    return HTTPException(413, f"a body has at most {MAX_BODY_BYTES} bytes, unpacked")


def _room(body: bytearray) -> int:
    # One byte more than there may be, to tell what is too large.
    return MAX_BODY_BYTES + 1 - len(body)


class _Plain:
    """A body that is not packed."""

    def pieces(self, chunk: bytes, body: bytearray) -> Iterator[bytes]:
        yield chunk[: _room(body)]

    def check_end(self) -> None: ...


class _Gzip:
    """A body that `gzip` has packed, which may be of several members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_WITH_HEADER)

    def pieces(self, chunk: bytes, body: bytearray) -> Iterator[bytes]:
        while chunk:
            if self._member.eof:
                self._member = zlib.decompressobj(_WITH_HEADER)
            try:
                yield self._member.decompress(chunk, _room(body))
            except zlib.error as error:
                raise HTTPException(
                    422, "the body is not packed with gzip, as Content-Encoding says"
                ) from error
            chunk = self._member.unused_data or self._member.unconsumed_tail

    def check_end(self) -> None:
        if not self._member.eof:
            raise HTTPException(422, "the body ends in the middle of what gzip has packed")


def _unpacking(request: Request) -> _Plain | _Gzip:
    match request.headers.get("content-encoding", "identity").lower():
        case "identity":
            return _Plain()
        case "gzip" | "x-gzip":
            return _Gzip()
        case other:
            raise HTTPException(415, f"Content-Encoding is {other!r:.100}; send gzip, or none")
