"""The pages as their tests look at them: in this process, parsed strictly."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any, Final

import httpx2
from typing_extensions import override

from run_log.core import WorkflowRun
from run_log.dashboard import create_app
from run_log.dashboard.access import Authenticate
from run_log.dashboard.paths import segment_of
from run_log.stores import RunLogService

NOON: Final = datetime(2026, 3, 4, 12, tzinfo=UTC)
BASE: Final = "http://dashboard"

_VOID: Final = frozenset({"meta", "link", "input", "br"})
_HEADINGS: Final = ("h1", "h2", "h3")


@dataclass(slots=True)
class Node:
    """An element of a page."""

    tag: str
    attributes: dict[str, str]
    around: Node | None = None
    within: list[Node | str] = field(default_factory=list["Node | str"])

    @property
    def text(self) -> str:
        """What a reader sees of it, on one line."""
        return " ".join(self.raw.split())

    @property
    def raw(self) -> str:
        """All text in it."""
        return "".join(each if isinstance(each, str) else each.raw for each in self.within)

    def all(self, tag: str = "", name: str = "", **attributes: str) -> list[Node]:
        """Return the elements in it with this tag, this class and these attributes, in order."""
        wanted = {key.rstrip("_").replace("_", "-"): text for key, text in attributes.items()}
        return [
            node
            for node in self._nodes()
            if tag in {"", node.tag}
            and (not name or name in node.attributes.get("class", "").split())
            and wanted.items() <= node.attributes.items()
        ]

    def one(self, tag: str = "", name: str = "", **attributes: str) -> Node:
        """Return the only element that `all` finds."""
        (found,) = self.all(tag, name, **attributes)
        return found

    def link(self, text: str) -> str:
        """Return where the link with this text leads."""
        (found,) = {node.attributes["href"] for node in self.all("a") if node.text == text}
        return found

    def table(self, name: str) -> list[list[str]]:
        """Return the texts of the cells of the table with this class, row by row."""
        rows = self.one("table", name).one("tbody").all("tr")
        return [[cell.text for cell in row.within if isinstance(cell, Node)] for row in rows]

    def _nodes(self) -> Iterator[Node]:
        for each in self.within:
            if isinstance(each, Node):
                yield each
                yield from each._nodes()


class _Strict(HTMLParser):
    """Makes the tree of a page, and fails where a browser would have to guess."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("", {})
        self._at = self.root

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: text or "" for name, text in attrs}
        assert len(attrs) == len(attributes), f"{tag} has an attribute twice: {attrs}"
        forbidden = [name for name in attributes if name == "style" or name.startswith("on")]
        assert not forbidden, f"{tag} has {forbidden}, which the policy forbids"
        node = Node(tag, attributes, self._at)
        self._at.within.append(node)
        if tag not in _VOID:
            self._at = node

    @override
    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert tag == self._at.tag, f"</{tag}> ends <{self._at.tag}>"
        assert self._at.around is not None
        self._at = self._at.around

    @override
    def handle_data(self, data: str) -> None:
        self._at.within.append(data)


def parsed(text: str) -> Node:
    """Return the tree of a page, which has to be right: elements closed, ids once, headings in order."""
    parser = _Strict()
    parser.feed(text)
    parser.close()
    ids = [node.attributes["id"] for node in parser.root.all() if "id" in node.attributes]
    assert len(ids) == len(set(ids)), f"ids twice: {sorted(each for each in ids if ids.count(each) > 1)}"
    levels = [_HEADINGS.index(node.tag) for node in parser.root.one("main").all() if node.tag in _HEADINGS]
    assert [0] == levels[:1], "a page begins with its h1"
    assert all(after - before <= 1 for before, after in pairwise(levels)), levels
    for label in parser.root.all("label"):
        assert "for" not in label.attributes or label.attributes["for"] in ids
    return parser.root


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A run log, and the pages that show it."""

    log: RunLogService
    client: httpx2.AsyncClient

    async def get(self, path: str, status: int = 200, **parameters: Any) -> Node:
        """Return the page at *path*, which is answered with this status."""
        response = await self.client.get(path, params=parameters or None)
        assert status == response.status_code, response.text
        return parsed(response.text)

    async def post(self, path: str, status: int, fields: dict[str, str]) -> httpx2.Response:
        """Return what a form that a browser sends to *path* is answered with."""
        response = await self.client.post(path, data=fields, headers=SAME_ORIGIN)
        assert status == response.status_code, response.text
        return response


SAME_ORIGIN: Final = {"origin": BASE, "sec-fetch-site": "same-origin"}


@asynccontextmanager
async def opened_site(
    log: RunLogService, *, now: Callable[[], datetime] = lambda: NOON, asking: Authenticate | None = None
) -> AsyncGenerator[Site]:
    """Yield the pages of *log*, at noon unless told otherwise; *asking* tells who asks, None is anybody."""
    app = create_app(log, auth=asking, now=now)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
        yield Site(log=log, client=client)


def path_of(run: WorkflowRun) -> str:
    """Return the path of the page of *run*."""
    return f"/workflows/{segment_of(run.workflow_id)}/runs/{segment_of(run.id)}"
