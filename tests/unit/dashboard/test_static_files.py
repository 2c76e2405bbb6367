"""What browsers load besides a page."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

STATIC = files("run_log.dashboard") / "static"
TEMPLATES = files("run_log.dashboard") / "templates"
MAX_SCRIPT_BYTES = 8_192


def test_the_script_is_small() -> None:
    """The script has at most 8 KiB, in strict mode, as it is written: nothing builds it."""
    script = (STATIC / "script.js").read_bytes()

    assert len(script) <= MAX_SCRIPT_BYTES
    assert script.startswith(b'"use strict";\n')


@pytest.mark.parametrize("name", ["script.js", "style.css"])
def test_nothing_is_from_elsewhere(name: str) -> None:
    """Script and style name no other host."""
    assert [] == re.findall(r"(?:https?:)?//[\w-]+\.[\w.-]+", (STATIC / name).read_text())


def test_the_policy_is_kept() -> None:
    """No template has a style, a script or a handler of its own, which the policy would forbid."""
    found = {
        each.name: re.findall(r"\sstyle=|\son[a-z]+=|<style|<script(?! src)", each.read_text())
        for each in TEMPLATES.iterdir()
        if each.name.endswith(".html")
    }

    assert {} == {name: faults for name, faults in found.items() if faults}
