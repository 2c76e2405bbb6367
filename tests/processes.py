"""The command line as processes of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from types import MappingProxyType


@contextlib.asynccontextmanager
async def started(
    *arguments: str,
    folder: Path | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    stdin: int | None = None,
) -> AsyncGenerator[Process]:
    """Run ``run-log`` with *arguments* as a process of its own, which does not outlive the block.

    Args:
        arguments: As typed.
        folder: Where it runs; None is here.
        environment: Variables besides this process's own.
        stdin: What it reads: `PIPE`, or None for what this process does.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from run_log.console import main; main()",
        *arguments,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=stdin,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
