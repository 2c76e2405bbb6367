"""The command line as processes of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

PATIENCE: Final = 240.0
"""How long a test waits for what has to come, on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a command left behind."""

    code: int | None
    out: str
    err: str


@contextlib.asynccontextmanager
async def started(*arguments: str, **environment: str) -> AsyncGenerator[Process]:
    """Run ``run-log`` with *arguments* as a process of its own, which does not outlive the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from run_log.console import main; main()",
        *arguments,
        env={**os.environ, **environment},
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ended(process: Process) -> Ended:
    """Wait for *process* to end by itself and return what it left behind."""
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    return Ended(code=process.returncode, out=out.decode(), err=err.decode())


async def run_log(*arguments: str, **environment: str) -> Ended:
    """Run ``run-log`` with *arguments* to its end."""
    async with started(*arguments, **environment) as process:
        return await ended(process)
