"""Exceptions as texts: what happened, then where, and never too much of it."""

from __future__ import annotations

import asyncio
import traceback
from itertools import islice
from types import TracebackType
from typing import Any, Final, cast

from run_log.core.nearest import Contained, qualified_name, type_name
from run_log.core.payload import encode_json

MAX_SUMMARY: Final = 8_000
"""Most characters of an exception's type and message."""

MAX_FRAMES: Final = 30
"""Most frames of a traceback: the innermost ones."""

MAX_TRACEBACK: Final = 16_000
"""Most characters of a traceback. With the summary it stays well below the limit of a run's error."""

MAX_RELATED: Final = 20
"""Most exceptions in a traceback (causes, contexts, members of groups), and most notes of one of them."""

MAX_MESSAGE: Final = 100_000
"""Most characters of a message before it is cut."""

# What ends a run from outside, and the word for it.
_CAUSES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (asyncio.CancelledError, "cancelled"),
    (KeyboardInterrupt, "interrupted"),
    (SystemExit, "exited"),
    (GeneratorExit, "closed"),
)

# These read an exception's attributes without running its class's code.
_ARGS: Final[Any] = vars(BaseException)["args"].__get__
_OWN_TRACEBACK: Final[Any] = vars(BaseException)["__traceback__"].__get__
_TRACEBACK: Final[Any] = vars(BaseException)["__traceback__"]
_CONTEXT: Final[Any] = vars(BaseException)["__context__"]
_CAUSE: Final[Any] = vars(BaseException)["__cause__"]

_MAX_CONTEXTS: Final = 100
_MRO: Final[Any] = vars(type)["__mro__"].__get__


# Packages whose ``Exit`` ends a command. They are known by name, so that none is imported.
_EXITS: Final = frozenset({"click", "typer", "asyncclick"})


def is_cancellation(error: BaseException) -> bool:
    """Return whether *error* ends a task that was cancelled."""
    return issubclass(type(error), asyncio.CancelledError)


def is_good_exit(error: BaseException) -> bool:
    """Return whether *error* ends the program with None or 0 as its exit code, as success."""
    attribute = _exit_attribute(type(error))
    if attribute is None:
        return False
    with Contained():  # foreign code: the interpreter too would make an error of what it raises
        code: object = getattr(error, attribute)
        # As the interpreter sees it: False and other integers equal to 0, but not 0.0.
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
    """
    # Not isinstance: an exception may lie about its class, or raise when it is asked for it.
    cause = next((name for kind, name in _CAUSES if issubclass(type(error), kind)), None)
    summary = _summary(error)
    summary = _cut(summary if cause is None else f"{cause}: {summary}", MAX_SUMMARY)
    where = _traceback(error, summary)
    return f"{summary}\n\n{where}" if where else summary


def _summary(error: BaseException) -> str:
    name = qualified_name(type(error))
    text = text_of(error)
    return f"{name}: {text}" if text else name


def name_and_text(error: BaseException) -> str:
    return f"{type_name(error)}: {text_of(error)}"


def text_of(error: BaseException) -> str:
    with _Muted():
        return _cut(_message(error), MAX_SUMMARY)
    return "<exception str() failed>"


class _Muted:
    """Suppresses all but Ctrl-C, because an exception's text may raise anything.

    It suppresses an exit as well, which would take the place of the exception that is described.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and not issubclass(kind, KeyboardInterrupt)


def _message(error: BaseException) -> str:
    args = _ARGS(error)
    is_text = len(args) == 1 and type(args[0]) is str
    if not is_text and not issubclass(type(error), BaseExceptionGroup):
        # `str` would write all that the arguments hold, as often as they hold it, which may be gigabytes.
        readable = encode_json(args)
        if len(readable) > MAX_MESSAGE:
            return readable
    return str.__str__(str(error))


def _traceback(error: BaseException, summary: str) -> str:
    """Return the end of the traceback of *error*, with its causes if they are few and short."""
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
    # The end says most: the innermost frames, of the exception that went on.
    return text if len(text) <= MAX_TRACEBACK else f"[...]\n{text[-MAX_TRACEBACK:]}"


def _is_simple(error: BaseException) -> bool:
    """Return whether the traceback module would write little about *error*."""
    # A member that a group holds twice counts twice, because it is written twice.
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


class Untouched:
    """Restores the traceback and the context of an exception that the block describes.

    A value's own code may raise the exception anew, which would change both.
    """

    def __init__(self, error: BaseException | None) -> None:
        self._before: list[tuple[BaseException, TracebackType | None, BaseException | None]] = []
        ahead, seen = [error], set[int]()
        while ahead and len(seen) < _MAX_CONTEXTS:
            visited = ahead.pop()
            if visited is not None and id(visited) not in seen:
                seen.add(id(visited))
                context: BaseException | None = _CONTEXT.__get__(visited)
                self._before.append((visited, _OWN_TRACEBACK(visited), context))
                ahead += (context, _CAUSE.__get__(visited))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        for error, trace, context in self._before:
            _TRACEBACK.__set__(error, trace)
            _CONTEXT.__set__(error, context)
