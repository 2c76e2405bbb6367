"""Functions whose calls are recorded, as runs or as steps."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from run_log.core import InvalidArgumentError

from ._handle import current_run

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Scope(AbstractContextManager[Any, None], AbstractAsyncContextManager[Any, None], Protocol):
    """What a call is recorded by, sync and async."""


def recorded(
    function: Callable[_P, _T],
    scope: Callable[[], Scope],
    returned: Callable[[Any, object], None] = lambda _entered, _value: None,
) -> Callable[_P, _T]:
    """Return *function*, with a scope around each of its calls.

    Args:
        function: Sync or async.
        scope: Makes the scope of a call.
        returned: Is given what the scope was entered as, and what the function returned.

    Raises:
        InvalidArgumentError: It is a generator function, or no function.
    """
    _check(function)
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        coroutine = cast("Callable[_P, Coroutine[Any, Any, Any]]", function)

        @functools.wraps(function)
        async def recorded_async(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            async with scope() as entered:
                value = await coroutine(*args, **kwargs)
                returned(entered, value)
                return value

        return cast("Callable[_P, _T]", recorded_async)

    @functools.wraps(function)
    def recorded_sync(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with scope() as entered:
            value = function(*args, **kwargs)
            returned(entered, value)
            return value

    return recorded_sync


def step(
    name: str | None = None, *, key: str | None = None
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Record each call of the decorated function as a step of the run around it, if there is one.

    Args:
        name: What people call the step; None takes the function's own name.
        key: See `RunHandle.step`.

    Raises:
        InvalidArgumentError: What is decorated is no function, or a generator function; or ``@step`` has no
            parentheses.
    """
    if callable(name):
        raise InvalidArgumentError('step needs parentheses: write @step() or @step("download")')

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        own = name or getattr(function, "__qualname__", None) or type(function).__qualname__

        def scope() -> Scope:
            run = current_run()
            return contextlib.nullcontext() if run is None else run.step(own, key=key)

        return recorded(function, scope)

    return decorate


def _check(function: object) -> None:
    name = getattr(function, "__qualname__", None) or repr(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidArgumentError(
            f"{name} is a generator function, which record_run cannot wrap; "
            "use `with record_run(...)` inside of it"
        )
    if isinstance(function, classmethod | staticmethod) or not callable(function):
        raise InvalidArgumentError(
            f"record_run wraps functions, and {name} is none; "
            "put @record_run(...) below @classmethod and @staticmethod"
        )
