"""Ids in paths: any text stands as one segment, whatever servers, proxies and clients do to a path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from run_log.core import InvalidArgumentError, WorkflowRun

ALL_WORKFLOWS: Final = "-"
"""What stands for all workflows, where a path names one (https://google.aip.dev/159)."""

OWN: Final = frozenset({"api", "inbox", "live", "operations", "static", "workflows"})
"""What the app's own paths begin with."""

# Servers decode "%2F" before they split a path, so the escape is another character. A dot could make a
# segment that clients collapse. A colon separates a custom method.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]|(?<=[A-Za-z0-9_-])\.")
_ALL_PLAIN: Final = re.compile(r"(?:[A-Za-z0-9_-]\.?)+")
_ESCAPE: Final = re.compile(rb"~([0-9A-F]{2})")


def root_path_of(text: str) -> str:
    """Return the path under which a proxy serves the app, as *text* says it: without a ``/`` at the end.

    Raises:
        InvalidArgumentError: It is no path, or the app's own paths begin so.
    """
    root = text.rstrip("/")
    if root and not root.startswith("/"):
        raise InvalidArgumentError(f"{text!r} is no path; a path begins with a slash: /{root}")
    # Proxies pass it on or not, and both are understood. Then one of these could be either.
    if root.split("/")[1:2] and root.split("/")[1] in OWN:
        raise InvalidArgumentError(
            f"the dashboard cannot be served under {root}: its own paths begin with {', '.join(sorted(OWN))}"
        )
    return root


def path_below(scope: Mapping[str, Any]) -> str:
    """Return the path of an ASGI *scope* below the prefix under which the app is mounted, or is served."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    # Some servers and proxies leave the prefix out of the path.
    return path.removeprefix(root) if path == root or path.startswith(f"{root}/") else path


def segment_of(text: str) -> str:
    """Return the id *text* as one segment of a path: ASCII, with no ``/``, ``%`` or leading dot."""
    if text == ALL_WORKFLOWS:
        return "~2D"
    if _ALL_PLAIN.fullmatch(text):
        return text
    return "".join(
        one
        if _PLAIN.fullmatch(text, at, at + 1)
        else "".join(f"~{byte:02X}" for byte in one.encode(errors="surrogatepass"))
        for at, one in enumerate(text)
    )


def name_of(run: WorkflowRun) -> str:
    """Return what names *run* in an address: its workflow and its id, as segments of a path."""
    return f"{segment_of(run.workflow_id)}/{segment_of(run.id)}"


def run_path(root: str, run: WorkflowRun) -> str:
    """Return the path of the page of *run*, where the app is mounted at *root*."""
    return f"{root}/workflows/{segment_of(run.workflow_id)}/runs/{segment_of(run.id)}"


def id_of(segment: str) -> str:
    """Return the id that `segment_of` wrote as *segment*; what stands there unescaped is taken as it is.

    Raises:
        InvalidArgumentError: A ``~`` begins no escape, or what is escaped is no UTF-8.
    """
    raw = segment.encode(errors="surrogatepass")
    if b"~" in _ESCAPE.sub(b"", raw):
        raise _no_segment(segment)
    try:
        return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), raw).decode()
    except UnicodeDecodeError as error:
        raise _no_segment(segment) from error


def _no_segment(segment: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{segment!r:.200} names nothing: in a path, ~ begins two upper-case hex digits of a byte of UTF-8, "
        "and ~ itself is ~7E"
    )
