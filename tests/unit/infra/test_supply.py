"""What is shipped is pinned and listed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from . import lock
from .dockerfile import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", requirement)[0].lower() for requirement in requirements}


def test_everything_is_pinned() -> None:
    """Each package in the lock comes from the package index with the digest of each of its files."""
    packages = [package for package in lock.packages() if package["name"] != PROJECT["project"]["name"]]

    assert packages
    for package in packages:
        assert {"registry"} == set(package["source"])
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert files
        assert all(file["hash"].startswith("sha256:") for file in files)
    assert all("==" in requirement for requirement in PROJECT["build-system"]["requires"])


@pytest.mark.process
def test_the_bill_of_materials(tmp_path: Path) -> None:
    """`make sbom` lists every dependency of every extra as it is locked, in CycloneDX, and no other."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not on PATH")
    written = tmp_path / "sbom.json"

    # The environment is this one: nothing is to be made anew.
    done = subprocess.run(  # noqa: S603 - our own Makefile
        [make, "--old-file=.venv/.ready", "sbom", f"SBOM={written}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    extras = dict(PROJECT["project"]["optional-dependencies"])
    apart = extras.pop("beam")
    needed = [*PROJECT["project"]["dependencies"], *(one for extra in extras.values() for one in extra)]
    assert _names(needed) <= _listed(written)
    assert _names(apart) <= _listed(written.with_suffix(".beam.json"))


def _listed(written: Path) -> set[str]:
    listed: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    assert ("CycloneDX", "1.5") == (listed["bomFormat"], listed["specVersion"])
    held = {(one["name"], one["version"]) for one in listed["components"]}
    names = {name for name, _ in held}
    assert held <= {(package["name"], package["version"]) for package in lock.packages()}
    assert not {"pytest", "mypy", "ruff", "uv"} & names
    return names
