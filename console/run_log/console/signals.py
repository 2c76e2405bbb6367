"""Signals of a process that is ours: the first ends its work in order, a second one the process."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from functools import partial
from types import FrameType

INTERRUPTED = 130


def stopped_by_signal() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets; a second signal ends the process."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        call_on(number, on_signal)
    # What is imported by now stays: each full collection would look at it again, a quarter of the CPU.
    gc.collect()
    gc.freeze()
    return stop


def call_on(number: signal.Signals, callback: Callable[[], None]) -> Callable[[], object]:
    """Have the signal *number* call *callback* in the running event loop; return what ends that."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(number, callback)
    except NotImplementedError:  # Windows' loops

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(callback)

        return partial(signal.signal, number, signal.signal(number, on_signal))
    return lambda: loop.remove_signal_handler(number)
