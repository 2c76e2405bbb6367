"""The one line on stderr of a process whose run states are lost: a library's log may go nowhere."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Final

from run_log.core.logs import one_line

MAX_REASON: Final = 700
"""Characters of a reason that are shown."""

SWITCH: Final = "RUN_LOG_STDERR_NOTICE"
"""See `Settings.stderr_notice`."""

_OFF: Final = frozenset({"0", "false", "off", "no", "f", "n"})

# Taken by whoever says it first. No lock: a fork or a signal's handler in the middle leaves nothing held.
_unsaid: Final = [True]


def say_loss(reason: str) -> None:
    """Say on stderr, once a process, that this process loses run states; never raises.

    A forked child of a process that has said it stays silent. Nothing is said where stderr is missing or
    closed, or where ``RUN_LOG_STDERR_NOTICE`` is false. That is read from the environment and not from
    `Settings`: settings that cannot be read are one of the reasons.

    Args:
        reason: What is wrong and what to do, without a full stop. Line breaks and what commands a terminal
            is escaped.
    """
    # Whatever stands for stderr may raise anything, and at the interpreter's end much is gone.
    with contextlib.suppress(Exception):
        stream = sys.stderr
        is_off = os.environ.get(SWITCH, "").strip().lower() in _OFF
        if is_off or not _unsaid or stream is None or getattr(stream, "closed", False):
            return
        line = f"run-log: runs of this process are not recorded: {one_line(reason, MAX_REASON)}"
        line += f" (said once; {SWITCH}=false turns this off)\n"
        shown = _encodable(line, getattr(stream, "encoding", None))
        _unsaid.pop()  # raises where another thread was first
        stream.write(shown)
        stream.flush()


def _encodable(line: str, encoding: Any) -> str:
    try:
        return line.encode(encoding, "backslashreplace").decode(encoding)
    except (LookupError, TypeError):  # a stream that is not the interpreter's own
        return line.encode("ascii", "backslashreplace").decode()
