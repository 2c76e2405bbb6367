"""Signals of a process that is ours: the first ends its work in order, a second one the process."""

from __future__ import annotations

import asyncio
import gc
import os
import signal

INTERRUPTED = 130


def stopped_by_signal() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets; a second signal ends the process."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    # What is imported by now stays: each full collection would look at it again, a quarter of the CPU.
    gc.collect()
    gc.freeze()
    return stop
