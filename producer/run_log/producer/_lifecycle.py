"""What the process's life means for emitters: exit, SIGTERM and fork."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
import weakref
from typing import Final, Protocol

from run_log.core import get_logger

EXIT_SECONDS: Final = 2.0
"""How long interpreter exit waits for delivery, in all."""

SIGTERM_SECONDS: Final = 5.0
"""How long a SIGTERM waits for delivery. Cloud Run kills ten seconds after it
(https://cloud.google.com/run/docs/container-contract#instance-shutdown)."""


OWN_FAULT: Final = "a fault of run-log's own: please report it, with its traceback"


class Delivers(Protocol):
    """What holds events that the process must not forget."""

    def begin_close(self) -> None:
        """Take nothing more; deliver what is held."""
        ...

    def finish_close(self, timeout: float) -> None:
        """Wait for delivery, *timeout* seconds at most, and let go of everything."""
        ...

    def deliver_or_keep(self, timeout: float) -> None:
        """Deliver what is held, *timeout* seconds at most; what is left goes to disk, where there is one."""
        ...

    def after_fork(self) -> None:
        """Start empty in a forked child."""
        ...


_live: weakref.WeakSet[Delivers] = weakref.WeakSet()
_is_child_hooked = False
_is_over = False
_logger: Final = get_logger("run_log.producer")


def track(delivery: Delivers) -> None:
    """Have *delivery* take part in the process's life, for as long as somebody holds it."""
    _live.add(delivery)
    if _is_over:
        delivery.begin_close()  # made by a late atexit hook: nobody would deliver what it held


def _all_live() -> list[Delivers]:
    while True:
        # Other threads may make emitters meanwhile.
        with contextlib.suppress(RuntimeError):
            return list(_live)


def deliver_at_exit() -> None:
    """Make sure that this process's normal end delivers; called where a delivery thread starts."""
    global _is_child_hooked  # noqa: PLW0603 - there is one process
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None or multiprocessing.parent_process() is None or _is_child_hooked:
        return
    from multiprocessing import util  # noqa: PLC0415 - not loaded where nobody uses it

    # A child that multiprocessing forked ends by os._exit, which runs no atexit hook; only its own.
    util.Finalize(None, close_all, exitpriority=0)
    _is_child_hooked = True


def close_all() -> None:
    """Deliver what all emitters hold, within `EXIT_SECONDS`, and close them. Twice is fine."""
    global _is_over  # noqa: PLW0603 - there is one process
    if _is_over:
        return
    _is_over = True
    deliveries = _all_live()
    for delivery in deliveries:
        delivery.begin_close()
    deadline = time.monotonic() + EXIT_SECONDS
    for delivery in deliveries:
        try:
            delivery.finish_close(max(0.0, deadline - time.monotonic()))
        except Exception as error:  # the others are to be closed all the same
            _logger.exception("run_log_emitter_failed", error=repr(error), hint=OWN_FAULT)


def handle_sigterm() -> None:
    """Have a SIGTERM deliver what is held before it ends the process, if nobody else handles it.

    Only the main thread can; elsewhere this does nothing. Whoever sets a handler of their own afterwards
    replaces this one.
    """
    if threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(_number: int, _frame: object) -> None:
    # A second one ends the process at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # In a thread of its own: what this one was doing when it was interrupted, in an emit perhaps, goes on.
    try:
        threading.Thread(target=_deliver_then_end, name="run-log-sigterm", daemon=True).start()
    except RuntimeError:  # the machine is out of threads
        os.kill(os.getpid(), signal.SIGTERM)


def _deliver_then_end() -> None:
    deadline = time.monotonic() + SIGTERM_SECONDS
    try:
        for delivery in _all_live():
            try:
                delivery.deliver_or_keep(max(0.0, deadline - time.monotonic()))
            except Exception as error:  # the others are to deliver all the same
                _logger.exception("run_log_emitter_failed", error=repr(error), hint=OWN_FAULT)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def _after_fork() -> None:
    global _live, _is_child_hooked, _is_over  # noqa: PLW0603 - there is one process
    # Another thread may have been in the middle of the old set.
    _live = weakref.WeakSet(_live)
    _is_child_hooked = _is_over = False
    for delivery in _all_live():
        delivery.after_fork()


atexit.register(close_all)
os.register_at_fork(after_in_child=_after_fork)
