"""What agents ask people, and how their answers get back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Final, TypedDict, cast

from run_log.core import InvalidArgumentError, RunEvent, RunStatus, WorkflowRun
from run_log.core.clock import HybridLogicalClock
from run_log.producer import RunHandle

CONFIRM: Final = "confirm"
"""The choice that lets a tool run which asks for a confirmation."""

DECLINE: Final = "decline"
"""The choice that does not."""

SESSION: Final = "session"
"""The label with the id of the session."""

# The names of ADK's own function calls.
_CONFIRMATION: Final = "adk_request_confirmation"
_CREDENTIAL: Final = "adk_request_credential"
_INPUT: Final = "adk_request_input"

# ADK takes an answer that is no object from under this name, and a form is that of an object.
_RESULT: Final = "result"

# What ADK asks where a tool says nothing of its own is for programs.
_OWN_HINT: Final = "by responding with a FunctionResponse"

_TEXT: Final[Mapping[str, Any]] = {"type": "string", "title": "Answer"}


class Resumption(TypedDict):
    """What ``Runner.run_async`` takes to go on with an invocation."""

    user_id: str
    session_id: str
    invocation_id: str
    new_message: Any
    """A ``google.genai.types.Content`` with the answer."""


def answer_of(run: WorkflowRun) -> Resumption:
    """Return what hands an answer back to the agent: ``runner.run_async(**answer_of(run))``.

    Nothing is read. An agent gets an answer as often as it is handed to it.

    Args:
        run: An agent's run whose pause was answered, in the inbox or by `RunLog.resume`.

    Raises:
        InvalidArgumentError: It was not, or it waits for credentials, which only ADK's own clients take.
    """
    request: dict[str, Any] = run.result.get("request") or {}
    pause, name = run.pause, request.get("name")
    if pause is None or pause.answered_by is None or not name:
        raise InvalidArgumentError(
            f"run {run.id!r} of {run.workflow_id!r} has no answer to hand to an agent: pass a run that "
            "RunLogPlugin has paused, after its answer"
        )
    if name == _CREDENTIAL:
        raise InvalidArgumentError(
            f"run {run.id!r} of {run.workflow_id!r} waits for credentials, which no run log keeps: give "
            "them to ADK itself"
        )
    response: dict[str, Any]
    if name == _CONFIRMATION:
        response = {"confirmed": pause.choice == CONFIRM}
        if pause.values:
            response["payload"] = pause.values
    elif pause.form is None:  # what is asked for is no JSON Schema
        response = {_RESULT: _unparsed(pause.comment)}
    elif _form(name, request.get("args"))[1]:
        response = {_RESULT: _unparsed((pause.values or {}).get(_RESULT))}
    else:
        response = {_RESULT: pause.values}
    types: Any = import_module("google.genai.types")
    function_response = types.FunctionResponse(id=request["id"], name=name, response=response)
    return {
        "user_id": str(run.trigger_data.get("user_id", "")),
        "session_id": run.labels.get(SESSION, ""),
        "invocation_id": run.id,
        "new_message": types.Content(role="user", parts=[types.Part(function_response=function_response)]),
    }


def pause_for(handle: RunHandle, call: Any) -> None:
    """Have a run wait for the answer to a function call."""
    result, pause = _asked_by(call)
    handle.set_result(result)
    handle.pause(**pause)


def _asked_by(call: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the result and the pause of a run that waits for the answer to a function call."""
    arguments: dict[str, Any] = dict(call.args or {})
    # Those for credentials may hold secrets.
    request = {"id": call.id, "name": call.name, **({} if call.name == _CREDENTIAL else {"args": arguments})}
    pause: dict[str, Any]
    if call.name == _CREDENTIAL:
        pause = {"reason": arguments.get("message") or "Credentials are needed: give them to ADK itself."}
    elif call.name == _CONFIRMATION:
        wanted: dict[str, Any] = arguments.get("originalFunctionCall") or {}
        confirmation: dict[str, Any] = arguments.get("toolConfirmation") or {}
        reason, hint = _called(wanted.get("name"), wanted.get("args")), str(confirmation.get("hint") or "")
        if hint and _OWN_HINT not in hint:
            reason = f"{reason}: {hint}"
        pause = {"reason": reason, "choices": (CONFIRM, DECLINE)}
    else:
        message = arguments.get("message") if call.name == _INPUT else None
        reason = message or _called(call.name, arguments)
        pause = {"reason": reason, "form": _form(call.name, arguments)[0]}
    return {"request": request}, pause


def _called(name: object, arguments: object) -> str:
    return f"{name}({json.dumps(arguments, ensure_ascii=False, default=str) if arguments else ''})"


def _form(name: object, arguments: Mapping[str, Any] | None) -> tuple[dict[str, Any], bool]:
    """Return the form of a request, and whether its answer, which is no object, stands under `_RESULT`."""
    schema: object = (arguments or {}).get("response_schema") if name == _INPUT else None
    known = cast("Mapping[str, Any]", schema) if isinstance(schema, Mapping) and schema else _TEXT
    if known.get("type") == "object":
        return dict(known), False
    form: dict[str, Any] = {"type": "object", "properties": {_RESULT: dict(known)}, "required": [_RESULT]}
    if "$defs" in known:  # which are looked for at the root
        form["$defs"] = form["properties"][_RESULT].pop("$defs")
    return form, True


def _unparsed(value: Any) -> Any:
    """Return *value* so that ADK, which reads a text that is JSON, reads it as the text that it is."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
        return json.dumps(value)
    return value


@dataclass
class Past:
    """What a session tells of an invocation."""

    began: Any = None
    """Its first event: the user's message."""
    latest: Any = None
    """The latest event that is not the user's."""
    asked: Any = None
    """The function call that it waited for when that came."""
    requests: dict[str, Any] = field(default_factory=dict[str, Any])
    """The function calls that wait for an answer, by their ids."""
    answer: dict[str, Any] = field(default_factory=dict[str, Any])
    """What was answered last, as `resume_run` takes it."""

    @classmethod
    def of(cls, events: Iterable[Any], invocation_id: str) -> Past:
        """Read it from the session's events."""
        past = cls()
        for event in events:
            if event.invocation_id == invocation_id:
                past._note(event)
        return past

    def _note(self, event: Any) -> None:
        self.began = self.began or event
        for request, response in note_requests(self.requests, event):
            if event.author == "user":
                self.answer = _answer(request, response)
        if event.author != "user":
            self.latest = event
            self.asked = next(iter(self.requests.values()), None)

    @property
    def has_begun(self) -> bool:
        """Whether anybody but the user has said anything."""
        return self.latest is not None

    def stated(self, begun: Mapping[str, Any]) -> RunEvent:
        """Return the state in which its process left the run, which has begun.

        Args:
            begun: What a run has from its beginning, its start aside.
        """
        more: dict[str, Any] = {"status": RunStatus.RUNNING}
        if self.asked is not None:
            result, pause = _asked_by(self.asked)
            more = {"status": RunStatus.PAUSED, "result": result, "pause": pause}
        # The run was paused after that event, by the clock of the machine that both come from.
        clock = HybridLogicalClock(lambda: int(self.latest.timestamp * 1e6))
        started_at = datetime.fromtimestamp(self.began.timestamp, UTC)
        return RunEvent.from_run({**begun, **more, "started_at": started_at}, clock=clock)


def note_requests(requests: dict[str, Any], event: Any) -> list[tuple[Any, Any]]:
    """Add the function calls that an event leaves to others to *requests*. Return those that it answers."""
    ids = event.long_running_tool_ids
    if ids:
        requests |= {call.id: call for call in event.get_function_calls() if call.id in ids}
    if not requests:
        return []
    return [
        (requests.pop(response.id), response.response)
        for response in event.get_function_responses()
        if response.id in requests
    ]


def _answer(call: Any, response: Any) -> dict[str, Any]:
    if not isinstance(response, Mapping) or call.name == _CREDENTIAL:
        return {}
    given = cast("Mapping[str, Any]", response)
    if call.name == _CONFIRMATION:
        payload: object = given.get("payload")
        values = cast("Mapping[str, Any]", payload) if isinstance(payload, Mapping) else None
        return {"choice": CONFIRM if given.get("confirmed") else DECLINE, "values": values}
    wrapped: object = given.get(_RESULT)
    is_whole = _form(call.name, call.args)[1] or not isinstance(wrapped, Mapping)
    return {"values": given if is_whole else wrapped}
