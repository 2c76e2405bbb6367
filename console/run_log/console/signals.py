"""Signals of a command: the first one ends its work in order, a second one ends the process."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from functools import partial
from types import FrameType

from .exit_codes import ExitCode


def stopped_by_signal() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets. A second signal ends the process."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            # Not sys.exit: cleanup could wait for the very thing that hangs. What is in hand comes again.
            os._exit(ExitCode.INTERRUPTED)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        call_on(number, on_signal)
    # Modules imported by now stay for ever. Without this, full collections scan them again and again, which
    # took a quarter of the CPU.
    gc.collect()
    gc.freeze()
    return stop


def call_on(number: signal.Signals, callback: Callable[[], None]) -> Callable[[], object]:
    """Call *callback* in the running event loop on a signal; return a function that ends this."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(number, callback)
    except NotImplementedError:  # Windows' loops

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            # The handler runs between any two instructions of the main thread, so the loop calls the
            # callback.
            loop.call_soon_threadsafe(callback)

        return partial(signal.signal, number, signal.signal(number, on_signal))
    return lambda: loop.remove_signal_handler(number)
