"""One copy of a run's payloads, which its owner can no longer change. What is far too large is cut before."""

from __future__ import annotations

import marshal
from itertools import islice
from typing import Any, Final

from run_log.core import WorkflowRun
from run_log.core.nearest import CUT_MARKER, MAX_PAYLOAD_BYTES, is_foreign
from run_log.core.payload import detached

MAX_CAPTURED_BYTES: Final = 5 * MAX_PAYLOAD_BYTES // 2
"""Most bytes of a run's payloads that are copied whole. JSON takes at least two bytes a value and marshal
at most five, so anything larger would be cut in any case."""

MAX_CUT_KEYS: Final = 10_000
"""Most outer keys of an oversized payload whose values are measured one by one."""

MAX_CONTAINERS: Final = 50_000
"""Most lists and objects of a run's payloads that are looked at before they are copied exactly."""

_CONTAINERS: Final = frozenset({dict, list, tuple})
_PLAIN: Final = frozenset({str, int, float, bool, type(None), bytes})
_EMPTY: Final = marshal.dumps(({}, {}))


def copied_payloads(run: WorkflowRun) -> tuple[bytes, int]:
    """Return a copy of the payloads, and how many values of them were cut."""
    payloads: tuple[dict[str, Any], ...] = (run.trigger_data, run.result)
    cut = 0
    try:
        if payloads == ({}, {}):
            return _EMPTY, 0
        # marshal takes every buffer for bytes: arrays, memory views, numpy's numbers.
        captured = marshal.dumps(payloads) if _is_exact(payloads) else b""
    except BaseException as error:
        if not is_foreign(error):
            raise
        # Nested too deep, changed by another thread meanwhile, or no dict in a run made without validation.
        captured = b""
    if not captured:
        payloads, cut = detached(*payloads)
        captured = marshal.dumps(payloads)
    if len(captured) <= MAX_CAPTURED_BYTES:
        return captured, cut
    payloads, more = _cut(payloads, len(captured))
    return marshal.dumps(payloads), cut + more


def _is_exact(payloads: tuple[object, ...]) -> bool:
    """Return whether *payloads* hold nothing but what marshal copies as what it is, with texts for keys."""
    ahead: list[Any] = [*payloads]
    # Bounded, because a container that holds itself has no end.
    for container in islice(ahead, MAX_CONTAINERS):
        values = container
        own: type[object] = type(container)  # pyright: ignore[reportUnknownVariableType]
        if own is dict:
            for key in container:
                if type(key) is not str:
                    return False
            values = container.values()
        for value in values:
            if type(value) not in _PLAIN:
                if type(value) not in _CONTAINERS:
                    return False
                ahead.append(value)
    return len(ahead) <= MAX_CONTAINERS


def _cut(payloads: tuple[dict[str, Any], ...], size: int) -> tuple[tuple[dict[str, Any], ...], int]:
    """Return copies whose largest values are replaced by markers, so that what is cut takes no memory."""
    copies = tuple(dict(payload) for payload in payloads)
    if sum(map(len, copies)) <= MAX_CUT_KEYS:
        sizes = sorted(
            (
                (len(marshal.dumps(value)), index, key)
                for index, copy in enumerate(copies)
                for key, value in copy.items()
            ),
            reverse=True,
        )
        for cut, (taken, index, key) in enumerate(sizes, start=1):
            copies[index][key] = f"{CUT_MARKER}, about {taken} bytes"
            size -= taken
            if size <= MAX_CAPTURED_BYTES:
                return copies, cut
    # The keys alone are too much.
    markers = tuple({CUT_MARKER: f"{len(copy)} keys"} if copy else {} for copy in copies)
    return markers, sum(map(len, copies))
