"""A projector in a process of its own, until SIGTERM: ``python -m tests.benchmarks.pull_process``."""

from __future__ import annotations

import asyncio
import signal

from run_log.core import Settings
from run_log.projector.google_cloud import pull


async def main() -> None:
    """Pull what the environment names until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await pull(Settings.from_env(), stop=stop)


if __name__ == "__main__":
    asyncio.run(main())
