"""The command that an error advises installs what is missing: it leads to where run-log came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from run_log.core.install import how_to_install, noted_origin


def test_what_is_not_installed_came_from_nowhere() -> None:
    """Where run-log only lies on the path, nobody noted where it came from, and a checkout is asked for."""
    assert {} == noted_origin("no-such-distribution")


def _commit(url: str) -> dict[str, Any]:
    return {"url": url, "vcs_info": {"vcs": "git", "commit_id": "1f2e3d"}}


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({}, "in a checkout of run-log: pip install '.[stores]'"),
        ({"url": "file:///gone"}, "in a checkout of run-log: pip install '.[stores]'"),
        (
            _commit("https://example.com/run-log.git"),
            "pip install 'run-log[stores] @ git+https://example.com/run-log.git@1f2e3d'",
        ),
        (
            {"url": "https://example.com/run_log.whl", "archive_info": {}},
            "pip install 'run-log[stores] @ https://example.com/run_log.whl'",
        ),
    ],
    ids=["an index", "a checkout that is gone", "a repository", "a download"],
)
def test_where_it_came_from(origin: dict[str, Any], expected: str) -> None:
    """What came over the network comes from there again; from nowhere known, a checkout is asked for."""
    assert expected == how_to_install("stores", origin)


@pytest.mark.parametrize(("editable", "option"), [(False, ""), (True, "-e ")])
def test_a_checkout(tmp_path: Path, editable: bool, option: str) -> None:  # noqa: FBT001 - a column of the table
    """What was installed from a checkout is installed from there, in the same way, whatever its name."""
    checkout = tmp_path / "run log"
    checkout.mkdir()
    origin = {"url": checkout.as_uri(), "dir_info": {"editable": editable}}

    assert f"cd '{checkout}' && pip install {option}'.[a,b]'" == how_to_install("a,b", origin)


def test_a_wheel(tmp_path: Path) -> None:
    """What was installed from a file is installed from that."""
    wheel = tmp_path / "run_log-0.1.0-py3-none-any.whl"
    wheel.touch()

    assert f"pip install '{wheel}[stores]'" == how_to_install("stores", {"url": wheel.as_uri()})
