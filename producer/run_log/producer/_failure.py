"""How an exception that ended a run is put into words: what, then where, and never too much of it."""

from __future__ import annotations

import asyncio
import traceback
from itertools import islice
from types import TracebackType
from typing import Any, Final, cast

from run_log.core.nearest import Contained, type_name
from run_log.core.payload import encode_json

MAX_SUMMARY: Final = 8_000
"""Most characters of an exception's type and message."""

MAX_FRAMES: Final = 30
"""Most frames of a traceback: the innermost ones."""

MAX_TRACEBACK: Final = 16_000
"""Most characters of a traceback. With the summary it stays well below what a run's error may take."""

MAX_RELATED: Final = 20
"""Most exceptions (causes, contexts, members of groups), and most notes of one, that a traceback tells of."""

MAX_MESSAGE: Final = 100_000
"""Most characters of one message that a traceback is made of, before it is cut."""

_CAUSES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (asyncio.CancelledError, "cancelled"),
    (KeyboardInterrupt, "interrupted"),
    (SystemExit, "exited"),
    (GeneratorExit, "closed"),
)
"""What ends a run from outside, and how it is called."""

_ARGS: Final[Any] = vars(BaseException)["args"].__get__
_OWN_TRACEBACK: Final[Any] = vars(BaseException)["__traceback__"].__get__
"""These read what an exception has, whatever its class makes of the names."""

_MRO: Final[Any] = vars(type)["__mro__"].__get__


_EXITS: Final = frozenset({"click", "typer", "asyncclick"})
"""Packages whose ``Exit`` ends a command; looked at by name, so that none is imported."""


def is_good_exit(error: BaseException) -> bool:
    """Return whether *error* ends the program as one that succeeded: with None or 0 as its exit code.

    Args:
        error: What leaves a run's block.
    """
    attribute = _exit_attribute(type(error))
    if attribute is None:
        return False
    with Contained():  # foreign code; the interpreter would make an error of what it raises, too
        code: object = getattr(error, attribute)
        # As the interpreter sees it: False and other integers that are 0, but no 0.0.
        return code is None or (isinstance(code, int) and code == 0)
    return False


def _exit_attribute(kind: type[BaseException]) -> str | None:
    if issubclass(kind, SystemExit):
        return "code"
    bases: tuple[type, ...] = _MRO(kind)
    for base in bases:
        module: object = vars(base).get("__module__")
        if type(module) is str and module.partition(".")[0] in _EXITS and base.__name__ == "Exit":
            return "exit_code"
    return None


def describe(error: BaseException) -> str:
    """Return *error* as a text: one line that says what happened, and the end of its traceback.

    Never raises, and takes milliseconds, whatever the exception holds.

    Args:
        error: Any exception; one whose own text cannot be had is described by its type.
    """
    # Not isinstance: an exception may lie about its class, or raise where it is asked for it.
    cause = next((name for kind, name in _CAUSES if issubclass(type(error), kind)), None)
    summary = _summary(error)
    summary = _cut(summary if cause is None else f"{cause}: {summary}", MAX_SUMMARY)
    where = _traceback(error, summary)
    return f"{summary}\n\n{where}" if where else summary


def _summary(error: BaseException) -> str:
    # What type itself says runs no code of a metaclass: "<class 'module.Name'>", without "builtins".
    name = type.__repr__(type(error))[len("<class '") : -len("'>")].removeprefix("__main__.")
    text = text_of(error)
    return f"{name}: {text}" if text else name


def told(error: BaseException) -> str:
    """Return the name of the type of *error* and its text, for a log line; never raises."""
    return f"{type_name(error)}: {text_of(error)}"


def text_of(error: BaseException) -> str:
    """Return what *error* says, cut; never raises."""
    with _Muted():
        return _cut(_message(error), MAX_SUMMARY)
    return "<exception str() failed>"


class _Muted:
    """Lets nothing of its block out but Ctrl-C: as in the traceback module, a text may raise anything.

    An exit is held back, too: it would take the place of the exception that is told of.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and not issubclass(kind, KeyboardInterrupt)


def _message(error: BaseException) -> str:
    args = _ARGS(error)
    is_text = len(args) == 1 and type(args[0]) is str
    if not is_text and not issubclass(type(error), BaseExceptionGroup):
        # A text is made of all that they hold, however often they hold it.
        readable = encode_json(args)
        if len(readable) > MAX_MESSAGE:
            return readable
    return str.__str__(str(error))


def _traceback(error: BaseException, summary: str) -> str:
    """Return the end of the traceback of *error*, with those it tells of where they are few and short."""
    own: TracebackType | None = _OWN_TRACEBACK(error)
    if own is None:
        return ""
    text = ""
    with _Muted():
        text = "Traceback (most recent call last):\n"
        text = f"{text}{''.join(traceback.format_tb(own, -MAX_FRAMES))}{summary}"
        if len(summary) < MAX_SUMMARY and _is_simple(error):
            whole = traceback.TracebackException(type(error), error, own, limit=-MAX_FRAMES, compact=True)
            text = "".join(whole.format()).strip()
    # Its end tells most: the innermost frames, of the exception that went on.
    return text if len(text) <= MAX_TRACEBACK else f"[...]\n{text[-MAX_TRACEBACK:]}"


def _is_simple(error: BaseException) -> bool:
    """Return whether the traceback module would write little about *error*.

    What a group holds twice counts twice, as it is written twice.
    """
    seen: set[int] = set()
    ahead = [error]
    for _ in range(MAX_RELATED):
        if not ahead:
            return True
        visited = ahead.pop()
        seen.add(id(visited))
        notes = getattr(visited, "__notes__", ())
        if len(notes) > MAX_RELATED or max(map(len, [_message(visited), *notes])) > MAX_MESSAGE:
            return False
        ahead += _related(visited, seen)
    return not ahead


def _related(error: BaseException, seen: set[int]) -> list[BaseException]:
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    members: tuple[BaseException, ...] = ()
    if issubclass(type(error), BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", error).exceptions
    return [*([] if cause is None or id(cause) in seen else [cause]), *islice(members, MAX_RELATED + 1)]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} [...]"
