"""Runs of Google ADK's runner, recorded by a plugin. It needs ADK 2.13 or newer."""

from ._plugin import RunLogPlugin
from ._requests import CONFIRM, DECLINE, Resumption, answer_of

__all__ = ["CONFIRM", "DECLINE", "Resumption", "RunLogPlugin", "answer_of"]
