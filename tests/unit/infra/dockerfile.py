"""The Dockerfile as values."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[3]
DOCKERFILE: Final = REPOSITORY / "infra" / "Dockerfile"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: ``COPY``, say, and what follows it on its line."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words of its exec form, or of its shell form."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


@dataclass(frozen=True, slots=True)
class Stage:
    """What is between one ``FROM`` and the next."""

    image: str
    instructions: list[Instruction] = field(default_factory=list[Instruction])

    def named(self, name: str) -> list[Instruction]:
        """Return the instructions called *name*."""
        return [one for one in self.instructions if one.name == name]

    @property
    def copied(self) -> list[str]:
        """What it copies out of the repository."""
        return [
            source
            for one in self.named("COPY")
            if not one.text.startswith("--from=")
            for source in one.words[:-1]
        ]


def stages() -> list[Stage]:
    """Return the stages, first to last."""
    found: list[Stage] = []
    for one in _instructions(DOCKERFILE.read_text(encoding="utf-8")):
        if one.name == "FROM":
            found.append(Stage(one.words[0]))
        else:
            found[-1].instructions.append(one)
    return found


def _instructions(text: str) -> Iterator[Instruction]:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield Instruction(name, rest.strip())
