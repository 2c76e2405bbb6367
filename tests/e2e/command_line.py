"""The command line, called in this process; or as a process of its own, where that is the point."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import io
import logging
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest
import typer.main

from run_log.console import main
from run_log.core import Settings

if TYPE_CHECKING:
    from run_log.stores import FirestoreRunLogService

PATIENCE: Final = 240.0
"""How long a test waits for what has to come, on a busy machine."""

# Each call would make all commands anew, which takes longer than most commands.
_get_command: Final = functools.cache(typer.main.get_command)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a command left behind."""

    code: int | None
    out: str
    err: str


class Stream(io.TextIOWrapper):
    """Stdout or stderr, which may be a terminal."""

    def __init__(self, *, is_terminal: bool, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        """Return whether it is one."""
        return self._is_terminal

    def text(self) -> str:
        """Return what was written."""
        self.flush()
        written: Any = self.buffer
        return str(written.getvalue().decode(self.encoding))


def called(
    *arguments: str,
    folder: Path | None = None,
    is_terminal: bool = False,
    encoding: str = "utf-8",
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Ended:
    """Run ``run-log`` with *arguments* in this process, to its end. What it sets for a process is undone.

    A command runs an event loop and may handle signals: only tests that are not async can call it.
    *environment* is added to this process's own.
    """
    out, err = (Stream(is_terminal=is_terminal, encoding=encoding) for _ in range(2))
    with pytest.MonkeyPatch.context() as patched, _as_it_was():
        for name, value in environment.items():
            patched.setenv(name, value)
        if folder is not None:
            patched.chdir(folder)
        # A module that was run would give the program its name.
        patched.setattr(sys.modules["__main__"], "__package__", None, raising=False)
        patched.setattr(typer.main, "get_command", _get_command)
        patched.setattr(sys, "argv", ["run-log", *arguments])
        patched.setattr(sys, "stdin", io.StringIO())
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    assert isinstance(code, int)
    return Ended(code=code, out=out.text(), err=err.text())


@contextlib.contextmanager
def _as_it_was() -> Generator[None]:
    """Undo what a command sets for its whole process: its log handlers, and what is not collected."""
    logger = logging.getLogger("run_log")
    handlers, level = list(logger.handlers), logger.level
    try:
        yield
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        gc.unfreeze()


def asked(ask: Callable[[FirestoreRunLogService], Awaitable[_T]]) -> _T:
    """Return what the run log in the environment's Firestore answers."""
    # Google's libraries load for seconds, and most tests of commands need none.
    from run_log.stores import FirestoreRunLogService  # noqa: PLC0415

    async def answered() -> _T:
        service = FirestoreRunLogService.from_env()
        try:
            return await ask(service)
        finally:
            await service.close()

    return asyncio.run(answered())


@contextlib.contextmanager
def projecting() -> Generator[None]:
    """Project what comes to the environment's subscription, beside the block and until its end."""
    from run_log.projector.google_cloud import pull  # noqa: PLC0415 - as above

    stop = asyncio.Event()
    with (
        asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner,
        ThreadPoolExecutor(max_workers=1) as thread,
    ):
        loop = runner.get_loop()
        projected = thread.submit(runner.run, pull(Settings.from_env(), stop=stop))
        try:
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            projected.result(PATIENCE)


async def ended(process: Process) -> Ended:
    """Wait for *process* to end by itself and return what it left behind."""
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    return Ended(code=process.returncode, out=out.decode(), err=err.decode())
