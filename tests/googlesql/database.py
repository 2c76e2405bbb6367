"""The warehouse's views in Google's own code, which analyzes BigQuery's SQL and has a reference engine."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Iterable, Mapping
from datetime import datetime
from subprocess import Popen
from typing import Any

from tests.warehouse import DATASET, Database, Row, sources, views, written

from run_log.core import Message


class GoogleSQL(Database):
    """They are in a program that runs in the environment of GoogleSQL.

    Attributes:
        refused: The views that are refused, and those that are made of them, with the reason.
    """

    def __init__(self, process: Popen[str], columns: Mapping[str, str]) -> None:
        self._process = process
        self._call("table", "messages", dict(columns))
        self.refused: dict[str, str] = {}
        for name, text in views().items():
            if missing := sources(text) & set(self.refused):
                self.refused[name] = f"It is made of {' and '.join(sorted(missing))}."
                continue
            try:
                self._call("view", name, text.replace(DATASET, ""))
            except ValueError as error:
                self.refused[name] = str(error)

    def load(self, messages: Iterable[Message], *, published_at: datetime) -> None:
        """See `Database`."""
        self._call("load", "messages", list(written(messages, published_at)))

    def analyze(self, query: str) -> None:
        """Raise a ValueError with the reason if BigQuery would refuse *query*."""
        self._call("analyze", query.replace(DATASET, ""))

    def rows(self, query: str) -> list[Row]:
        """See `Database`."""
        found: list[Row] = self._call("rows", query.replace(DATASET, ""))
        return found

    def _call(self, method: str, *arguments: object) -> Any:
        process = self._process
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(f"{base64.b64encode(pickle.dumps((method, *arguments))).decode()}\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, process.stderr.read()
        answer = pickle.loads(base64.b64decode(line))  # noqa: S301 - our own program
        if isinstance(answer, ValueError):
            raise answer
        return answer
