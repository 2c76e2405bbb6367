"""Which runs a list shows, as its address says it: what the form, the links and the live rows agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self, cast
from urllib.parse import urlencode

from run_log.core import InvalidArgumentError, RunRef, WorkflowRun, words
from run_log.core.clock import rfc3339
from run_log.dashboard.paths import id_of
from run_log.stores.listings import RunConditions, Selection

FIELDS: Final = (
    "workflow",
    "status",
    "label",
    "trigger",
    "error_type",
    "within",
    "since",
    "until",
    "parent",
)
"""The parameters that narrow a list; ``label`` and ``status`` may be repeated."""

_SEVERAL: Final = frozenset({"label", "status"})
_TIMES: Final = frozenset({"within", "since", "until"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which runs a list shows. Where something of it cannot be used, `faults` says what, by field."""

    given: Sequence[tuple[str, str]]
    """What was filled in, by field, as it was."""
    workflow_id: str | None
    """The workflow; None for all."""
    conditions: RunConditions
    """For `list_runs`."""
    faults: Mapping[str, str]
    """What is wrong with a field, for people."""

    @classmethod
    def of(cls, parameters: Iterable[tuple[str, str]], now: datetime) -> Self:
        """Return the filter that the *parameters* of an address say, with times as of *now*."""
        given = tuple((name, text) for name, text in parameters if name in FIELDS and text.strip())
        faults: dict[str, str] = {}
        conditions: dict[str, Any] = {}
        for name, text in given:
            if name == "workflow":
                continue
            try:
                argument, value = _PARSERS[name](text, now)
                # What a value may be, the library knows; one at a time, so that each fault has its field.
                Selection.of(**{argument: value})
            except InvalidArgumentError as error:
                faults[name] = str(error)
            else:
                _add(conditions, argument, value)
        return cls(
            given=given,
            workflow_id=next((text for name, text in given if name == "workflow"), None),
            conditions=cast("RunConditions", conditions),
            faults=faults,
        )

    @property
    def query(self) -> str:
        """The filter as the query of an address, without ``?``; empty for all runs."""
        return encoded(self.given)

    @property
    def pinned(self) -> str:
        """The same query with its times as they are now.

        A page's token belongs to the very filter of the page before, and ``within=1h`` moves on.
        """
        kept = [pair for pair in self.given if pair[0] not in _TIMES]
        times = (("since", self.conditions.get("since")), ("until", self.conditions.get("until")))
        return encoded([*kept, *((name, rfc3339(moment)) for name, moment in times if moment)])

    def first(self, name: str) -> str:
        """Return what was filled in for *name*; empty for nothing."""
        return next((text for each, text in self.given if each == name), "")

    def all(self, name: str) -> list[str]:
        """Return everything that was filled in for *name*."""
        return [text for each, text in self.given if each == name]

    def having(self, name: str, text: str | None) -> str:
        """Return the query of this filter with *text* as its *name*; None leaves that out.

        A label is added to those that are there, and else replaces what was.
        """
        kept = [pair for pair in self.given if pair[0] != name or (text and name == "label")]
        added = [(name, text)] if text and (name, text) not in kept else []
        return encoded([*kept, *added])

    def wants(self, run: WorkflowRun) -> bool:
        """Return whether the list has *run*."""
        selection = Selection.of(**self.conditions)
        return (
            self.workflow_id in (None, run.workflow_id)
            and (selection.since is None or run.started_at >= selection.since)
            and (selection.until is None or run.started_at < selection.until)
            and selection.wants(run)
        )


def _add(conditions: dict[str, Any], argument: str, value: object) -> None:
    if argument in _SEVERAL:
        conditions.setdefault(argument, []).append(value)
    elif argument == "since" and argument in conditions:
        # `within` and `since` both hold.
        conditions[argument] = max(conditions[argument], value)
    else:
        conditions[argument] = value


def _parent(text: str) -> RunRef:
    workflow, slash, run = text.partition("/")
    if not slash:
        raise InvalidArgumentError(f"{text!r} names no run: it is WORKFLOW/RUN")
    return RunRef(id_of(workflow), id_of(run))


def _begun(text: str, now: datetime) -> datetime:
    words.duration(text)
    return words.moment(text, now)


def encoded(pairs: Iterable[tuple[str, str]]) -> str:
    """Return *pairs* as the query of an address, in which as much as possible stays readable."""
    return urlencode([*pairs], safe="/:=,@", errors="surrogatepass")


def with_query(path: str, query: str) -> str:
    """Return the address of *path* with a *query*, which may be empty."""
    return f"{path}?{query}" if query else path


_PARSERS: Final[Mapping[str, Callable[[str, datetime], tuple[str, Any]]]] = {
    "status": lambda text, _now: ("status", text.strip()),
    "label": lambda text, _now: ("label", words.label_pair(text)),
    "trigger": lambda text, _now: ("trigger_type", text.strip()),
    "error_type": lambda text, _now: ("error_type", text.strip()),
    "within": lambda text, now: ("since", _begun(text.strip(), now)),
    "since": lambda text, now: ("since", words.moment(text.strip(), now)),
    "until": lambda text, now: ("until", words.moment(text.strip(), now)),
    "parent": lambda text, _now: ("parent", _parent(text)),
}
