"""The command line as processes of its own."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from dataclasses import dataclass
from typing import Final

from tests.processes import started

PATIENCE: Final = 240.0
"""How long a test waits for what has to come, on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a command left behind."""

    code: int | None
    out: str
    err: str


async def ended(process: Process) -> Ended:
    """Wait for *process* to end by itself and return what it left behind."""
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    return Ended(code=process.returncode, out=out.decode(), err=err.decode())


async def run_log(*arguments: str, **environment: str) -> Ended:
    """Run ``run-log`` with *arguments* to its end."""
    async with started(*arguments, environment=environment) as process:
        return await ended(process)
