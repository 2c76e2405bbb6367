"""The Terraform module as values: its files parsed, and what is simple in them worked out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import hcl2

REPOSITORY: Final = Path(__file__).resolve().parents[3]
FOLDER: Final = REPOSITORY / "infra" / "terraform"

_REFERENCE: Final = re.compile(r"\$\{(tostring\()?(var|local)\.(\w+)\)?\}")
_HELD: Final = hcl2.SerializationOptions(with_comments=False, explicit_blocks=False, strip_string_quotes=True)

Written: TypeAlias = "dict[str, Written] | list[Written] | str | float | bool | None"
"""What stands in a file: values, and expressions as text."""


class TerraformModule:
    """Every file of the module, with the defaults of its variables."""

    def __init__(self) -> None:
        self.text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.tf")))
        self.resources: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.variables: dict[str, dict[str, Any]] = {}
        self._locals: dict[str, Any] = {}
        loads = cast("Callable[..., dict[str, Any]]", hcl2.loads)  # pyright: ignore[reportUnknownMemberType]
        parsed = loads(self.text, serialization_options=_HELD)
        for block in parsed["resource"]:
            for kind, named in block.items():
                self.resources[kind].update(named)
        for block in parsed["variable"]:
            self.variables.update(block)
        self.outputs = {name for block in parsed["output"] for name in block}
        for block in parsed["locals"]:
            self._locals.update(block)

    def local(self, name: str) -> Any:
        """Return a local value, as far as it is simple."""
        return self.value(self._locals[name])

    def value(self, written: Written) -> Any:
        """Return what *written* comes to with the defaults; an expression stays as it is written."""
        if isinstance(written, dict):
            return {key: self.value(value) for key, value in written.items()}
        if isinstance(written, list):
            return [self.value(value) for value in written]
        if not isinstance(written, str):
            return written
        if whole := _REFERENCE.fullmatch(written):
            return self._referred(whole)
        return _REFERENCE.sub(lambda found: str(self._referred(found)), written)

    def attribute(self, kind: str, name: str, *path: str) -> Any:
        """Return an attribute of a resource; each step of *path* but the last names a block there is once."""
        found = self.resources[kind][name]
        for step in path[:-1]:
            (found,) = found[step]
        return self.value(found[path[-1]])

    def _referred(self, found: re.Match[str]) -> Any:
        as_text, where, name = found.groups()
        if where == "local":
            value = self.local(name)
        elif "default" in self.variables[name]:
            value = self.value(self.variables[name]["default"])
        else:
            return found[0]
        return str(value) if as_text else value
