"""The container image, as far as its Dockerfile says what it is; tests/e2e builds what it builds."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from . import lock
from .dockerfile import DOCKERFILE, REPOSITORY, stages

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def test_both_stages_are_one_pinned_python() -> None:
    """Both stages are the same exact version of a Python that run-log is made for."""
    builder, final = stages()

    pinned = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", builder.image)
    assert pinned
    assert builder.image == final.image
    assert f"Programming Language :: Python :: {pinned[1]}" in PROJECT["project"]["classifiers"]


def test_the_uv_that_installs_is_the_locked_one() -> None:
    """The builder installs the uv that the lock pins."""
    builder, _ = stages()
    (locked,) = [package["version"] for package in lock.packages() if package["name"] == "uv"]

    assert f"UV_VERSION={locked}" in [one.text for one in builder.named("ARG")]
    (pip,) = [one for one in builder.named("RUN") if "pip" in one.words]
    assert "uv==${UV_VERSION}" in pip.words


def test_what_is_installed_is_locked() -> None:
    """What is installed is what the lock says, without what only developers need or a link to sources."""
    builder, _ = stages()
    syncs = [one.words for one in builder.named("RUN") if one.words[:2] == ["uv", "sync"]]

    assert 2 == len(syncs)
    for words in syncs:
        assert {"--locked", "--no-dev"} <= set(words)
    assert "--no-editable" in syncs[-1]


def test_what_runs() -> None:
    """The final stage holds the environment and nothing else, and runs it without a shell as nobody."""
    _, final = stages()

    assert {"COPY", "USER", "ENTRYPOINT", "CMD"} == {one.name for one in final.instructions}
    assert ["--from=builder /app/.venv /app/.venv"] == [one.text for one in final.named("COPY")]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", final.named("USER")[0].text)
    (entry,), (defaults,) = final.named("ENTRYPOINT"), final.named("CMD")
    assert entry.text.startswith("[")
    assert defaults.text.startswith("[")
    assert ["/app/.venv/bin/run-log"] == entry.words


def test_only_what_is_copied_is_sent() -> None:
    """What is copied is named one by one; nothing else of the repository reaches the build."""
    builder, _ = stages()
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    assert "*" == rules[0]
    assert sorted(builder.copied) == sorted(rule[1:] for rule in rules if rule.startswith("!"))
    assert all((REPOSITORY / source).exists() for source in builder.copied)
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {Path(package).parts[0] for package in packages} <= set(builder.copied)


@pytest.mark.process
def test_the_linter_has_nothing_to_say() -> None:
    """Hadolint finds nothing in the Dockerfile, not even of style."""
    done = subprocess.run(  # noqa: S603 - the linter of our own lock
        [Path(sys.executable).with_name("hadolint"), "--failure-threshold", "style", DOCKERFILE],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
