"""What emitters do when the process exits, forks, execs or gets a SIGTERM."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import functools
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from run_log.core.logs import get_logger
from run_log.core.settings import variable

EXIT_SECONDS: Final = 2.0
"""How long interpreter exit waits for delivery, in all. Events that are emitted later get as long again."""

SIGTERM_SECONDS: Final = 5.0
"""How long a SIGTERM waits for delivery. Cloud Run kills ten seconds after it
(https://cloud.google.com/run/docs/container-contract#instance-shutdown)."""

_FALSE: Final = frozenset({"0", "off", "f", "false", "n", "no"})
# Linux's mark of a process that was forked and has executed nothing since (include/linux/sched.h).
_PF_FORKNOEXEC: Final = 0x40

_logger: Final = get_logger("run_log.producer")


OWN_FAULT: Final = "a fault of run-log's own: please report it, with its traceback"


class Delivers(Protocol):
    """What holds events that the process must not lose: a `Delivery`."""

    def begin_end(self) -> None: ...

    def end(self, timeout: float) -> None: ...

    def deliver_or_keep(self, timeout: float) -> None: ...

    def holds(self) -> bool: ...

    def after_fork(self) -> None: ...


def _was_forked() -> bool:
    # A program that forks for each job may import the job's code, and us with it, in the child only. Then the
    # hook below came too late to see the fork.
    try:
        with open("/proc/self/stat", "rb") as stat:  # noqa: PTH123 - a path object costs more than the read
            flags = stat.read().rpartition(b")")[2].split()[6]
    except (OSError, IndexError):
        return False  # not Linux
    return bool(int(flags) & _PF_FORKNOEXEC)


@dataclass(slots=True)
class _Process:
    """What is known of this process. A forked child has another one."""

    is_forked: bool
    pid: int = field(default_factory=os.getpid)
    is_over: bool = False
    late_seconds: float = EXIT_SECONDS
    is_child_hooked: bool = False
    wants_sigterm: bool = True
    has_sigterm: bool = False
    has_warned: bool = False
    may_be_pooled: bool = False
    """Whether a pool of multiprocessing may have forked it. Pools terminate their workers at any moment."""


_live: weakref.WeakSet[Delivers] = weakref.WeakSet()
_process = _Process(_was_forked())


def track(delivery: Delivers) -> None:
    """Have *delivery* deliver when the process ends, for as long as somebody holds it."""
    _live.add(delivery)
    if _process.is_over:
        delivery.begin_end()


def _all_live() -> list[Delivers]:
    while True:
        # Another thread may make an emitter meanwhile, and a set that changes cannot be iterated over.
        with contextlib.suppress(RuntimeError):
            return list(_live)


def _each(work: Callable[[Delivers, float], None], seconds: float) -> None:
    """Do *work* with each emitter. They share the time."""
    deadline = time.monotonic() + seconds
    for delivery in _all_live():
        try:
            work(delivery, max(0.0, deadline - time.monotonic()))
        except Exception as error:  # the others have to deliver all the same
            _logger.exception("run_log_emitter_failed", error=repr(error), hint=OWN_FAULT)


# Exit


def watch_the_end() -> None:
    """Make sure that the end of this process delivers. Called when a delivery thread starts."""
    _watch_exec()
    _take_sigterm()
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None or multiprocessing.parent_process() is None or _process.is_child_hooked:
        return
    from multiprocessing import util  # noqa: PLC0415 - only a child of multiprocessing needs it

    # Such a child ends by os._exit, which runs no atexit hook. It runs these finalizers first.
    util.Finalize(None, close_all, exitpriority=0)
    _process.is_child_hooked = True


def close_all() -> None:
    """Deliver what all emitters hold, within `EXIT_SECONDS`. Calling it twice is fine."""
    # Exit hooks run in reverse order, so those registered before this one may emit later. That is delivered
    # at once.
    if _process.is_over:
        return
    _process.is_over = True
    for delivery in _all_live():
        delivery.begin_end()
    _each(lambda delivery, seconds: delivery.end(seconds), EXIT_SECONDS)


def deliver_late(delivery: Delivers) -> None:
    """Deliver what was emitted after `close_all`, in the thread that emitted it."""
    begun, left = time.monotonic(), _process.late_seconds
    delivery.end(left)
    _process.late_seconds = max(0.0, left - (time.monotonic() - begun))


def is_forked() -> bool:
    """Return whether this process was forked. It may then end by ``os._exit``, which runs no hook of ours."""
    return _process.is_forked


@functools.cache
def _watch_exec() -> None:
    """Have ``os.exec*`` deliver first. All of them call one of these two functions."""
    # An audit hook would see them too, but it slows all other code: `copy.deepcopy` takes twice as long.
    for name in ("execv", "execve"):
        function = getattr(os, name)
        delivering = _delivering_first(function)
        if function in os.supports_fd:
            os.supports_fd.add(delivering)
        setattr(os, name, delivering)


def _delivering_first(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def delivering(path: Any, *args: Any, **kwargs: Any) -> Any:
        # execvp tries one folder after the other. Only the one that has the program is worth waiting for.
        if _process.pid == os.getpid() and (isinstance(path, int) or os.access(path, os.X_OK)):
            _each(lambda delivery, seconds: delivery.deliver_or_keep(seconds), EXIT_SECONDS)
        return function(path, *args, **kwargs)

    return delivering


# SIGTERM


def handle_sigterm() -> None:
    """Have a SIGTERM deliver what is held before it ends the process, unless somebody else handles it."""
    # Only the main thread can set a handler. In another thread this waits until the main thread emits. A
    # handler that the program sets later replaces this one.
    _process.wants_sigterm, _process.has_sigterm = True, False
    if not _process.may_be_pooled:
        _take_sigterm()


def leave_sigterm() -> None:
    """Have a SIGTERM end the process at once, as it does without run-log."""
    _process.wants_sigterm = False
    _give_sigterm_back()  # it fails outside of the main thread; then the handler sees that it is not wanted


def stand_down() -> None:
    """Have a SIGTERM end a pool's worker at once while it holds nothing. Called when a run has ended."""
    # Python runs handlers between two of its instructions only. A worker that was about to block in a read
    # would never run the handler, and its pool would wait for the worker for ever.
    if _process.may_be_pooled and _process.has_sigterm and not any(one.holds() for one in _all_live()):
        _give_sigterm_back()


def warn_of_sigterm() -> None:
    """Log once that a SIGTERM would lose what is held, if nobody could set the handler."""
    process = _process
    if not process.wants_sigterm or process.has_sigterm or process.has_warned:
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        process.has_warned = True
        _logger.warning(
            "run_log_sigterm_unhandled",
            hint="the main thread, which alone can handle signals, has neither imported run_log.producer "
            "nor recorded anything; have it do so, or call default_emitter().close() in a SIGTERM handler of "
            "your own",
        )


def _take_sigterm() -> None:
    if not _process.wants_sigterm or _process.has_sigterm:
        return
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        _process.has_sigterm = _set_sigterm(_on_sigterm)


def _give_sigterm_back() -> None:
    if signal.getsignal(signal.SIGTERM) is _on_sigterm and _set_sigterm(signal.SIG_DFL):
        _process.has_sigterm = False


def _set_sigterm(handler: Any) -> bool:
    try:
        signal.signal(signal.SIGTERM, handler)
    except ValueError:  # not the main thread, or not the main interpreter
        return False
    return True


def _on_sigterm(_number: int, _frame: object) -> None:
    # A second SIGTERM ends the process at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A child that C code forked, without Python's hooks, still has its parent's events and must not deliver
    # them: the pid shows it.
    if _process.wants_sigterm and _process.pid == os.getpid() and any(one.holds() for one in _all_live()):
        # In another thread, because this one may be in the middle of an emit and hold a lock. Started by
        # `_thread`: the locks of `threading` may be held as well.
        with contextlib.suppress(RuntimeError):  # the machine is out of threads
            _thread.start_new_thread(_deliver_then_end, ())
            return
    os.kill(os.getpid(), signal.SIGTERM)


def _deliver_then_end() -> None:
    try:
        _each(lambda delivery, seconds: delivery.deliver_or_keep(seconds), SIGTERM_SECONDS)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def _is_turned_off(environ: Mapping[str, str] = os.environ) -> bool:
    # Not by `Settings`: an environment with faults must not make the import fail. The emitter reports them.
    return environ.get(variable("handle_sigterm"), "").strip().lower() in _FALSE


# Fork


def _before_fork() -> None:
    # CPython clears the signals that came to a child before its hooks run, and a SIGTERM would be lost. So it
    # stays blocked until the hooks have run.
    is_ours = signal.getsignal(signal.SIGTERM) is _on_sigterm
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}) if is_ours else None


def _after_fork_in_parent() -> None:
    mask = getattr(_forking, "mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    global _live, _process  # noqa: PLW0603 - there is one process
    # A new set: another thread of the parent may have been changing the old one.
    _live = weakref.WeakSet(_live)
    _process = _Process(
        is_forked=True,
        wants_sigterm=_process.wants_sigterm,
        may_be_pooled="multiprocessing.popen_fork" in sys.modules,
    )
    for delivery in _all_live():
        delivery.after_fork()
    (_give_sigterm_back if _process.may_be_pooled else _take_sigterm)()
    _after_fork_in_parent()


_forking: Final = threading.local()
_process.wants_sigterm = not _is_turned_off()
_take_sigterm()
atexit.register(close_all)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
