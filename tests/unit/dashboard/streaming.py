"""A stream as a client reads it, which may be cut off at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from starlette.types import ASGIApp

from run_log.dashboard import create_app
from run_log.dashboard.streams import Changes, StreamTimes
from run_log.stores import RunLog

PATIENCE: Final = 60.0
WATCH: Final = "/api/v1/runs:watch"


@dataclass(frozen=True, slots=True)
class Event:
    """An event, or what else stands between two empty lines."""

    fields: dict[str, str]

    @property
    def id(self) -> str:
        """Where a client comes back to that has seen it."""
        return self.fields["id"]

    @property
    def json(self) -> Any:
        """The data."""
        return json.loads(self.fields["data"])


class Stream:
    """The answer to one request, as it comes."""

    def __init__(self, app: ASGIApp, path: str, headers: dict[str, str]) -> None:
        self._app = app
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path.partition("?")[0],
            "raw_path": path.partition("?")[0].encode(),
            "query_string": path.partition("?")[2].encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in {"host": "h", **headers}.items()],
            "client": ("127.0.0.1", 1234),
            "server": ("h", 80),
        }
        self._asked = False
        self._gone = asyncio.Event()
        self._sent: asyncio.Queue[bytes] = asyncio.Queue()
        self._text = ""
        self.status = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Have the app answer, until it has or the client is gone."""
        try:
            await self._app(self._scope, self._receive, self._send)
        finally:
            self._sent.put_nowait(b"")

    def cut(self) -> None:
        """Be gone."""
        self._gone.set()

    async def next(self) -> Event:
        """Return what comes next.

        Raises:
            EOFError: The answer has ended.
        """
        async with asyncio.timeout(PATIENCE):
            while "\n\n" not in self._text:
                more = await self._sent.get()
                if not more:
                    raise EOFError
                self._text += more.decode()
        block, _, self._text = self._text.partition("\n\n")
        lines = (line.partition(": ") for line in block.split("\n"))
        return Event({name: value for name, _, value in lines})

    async def event(self) -> Event:
        """Return the next event, and pass over what is none."""
        while "data" not in (found := await self.next()).fields:
            pass
        return found

    async def _receive(self) -> MutableMapping[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status.set_result(message["status"])
        elif body := message.get("body"):
            self._sent.put_nowait(body)


@asynccontextmanager
async def streaming(
    app: ASGIApp, path: str = WATCH, *, last_event_id: str = "", **parameters: str
) -> AsyncGenerator[Stream]:
    """Yield the stream of *app* at *path* with *parameters*; it is cut at the end of the block."""
    headers = {"last-event-id": last_event_id} if last_event_id else {}
    stream = Stream(app, f"{path}?{urlencode(parameters)}", headers)
    running = asyncio.create_task(stream.run())
    try:
        yield stream
    finally:
        stream.cut()
        async with asyncio.timeout(PATIENCE):
            await running


def app_of(log: RunLog, times: StreamTimes = StreamTimes(), **arguments: Any) -> Any:  # noqa: B008 - frozen
    """Return the app of *log*, whose streams last as *times* say; *arguments* are those of `Changes`."""
    app = create_app(log)
    changes = Changes(lambda: log, times=times, **arguments)
    app.state.context = replace(app.state.context, changes=changes)
    return app
