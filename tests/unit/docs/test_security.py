from __future__ import annotations

import re

import pytest
from tests.unit.infra.command_line import SETTINGS
from tests.unit.infra.terraform_module import TerraformModule

from run_log.projector import GroupLimits
from run_log.pubsub._provision import RETENTION

from .repository import REPOSITORY, codes, every_test, read, section, table

SECURITY = read("SECURITY.md")
THREATS = table(SECURITY, "threat")


@pytest.fixture(scope="module")
def known() -> frozenset[str]:
    """Return every test that there is: the sources are parsed once."""
    return every_test()


def _is_file(name: str) -> bool:
    return "::" not in name and (REPOSITORY / name).is_file()


@pytest.mark.parametrize("threat", THREATS, ids=lambda row: row[0])
def test_what_holds_a_threat_is_there(threat: list[str], known: frozenset[str]) -> None:
    """Each threat names a test, or a file, that there is; it says what is done, and what is left to do."""
    _, done, held_by, _ = threat

    held = codes(held_by)
    assert done
    assert held
    assert [] == [name for name in held if name not in known and not _is_file(name)]


def test_every_named_test_and_file_is_there() -> None:
    """No test, file, target or setting is named anywhere on the page that there is not."""
    named = codes(SECURITY)
    paths = [name for name in named if "/" in name and "::" not in name and not name.startswith("roles/")]
    variables = {name.split("=")[0] for name in named if re.fullmatch(r"RUN_LOG_[A-Z_]+(=\w+)?", name)}
    targets = {name.split()[1] for name in named if name.startswith("make ")}

    assert all(map(_is_file, paths))
    assert variables <= SETTINGS
    assert targets <= set(re.findall(r"^(\w+):", read("Makefile"), re.MULTILINE))
    assert {"sbom", "audit"} <= targets


def test_alerts_and_variables_of_the_module() -> None:
    """Alerts that the page names are the module's, and so are names with an underscore, calls apart."""
    module = TerraformModule()
    alerts = {codes(row[0])[0] for row in table(section(read("docs/operations.md"), "## Alerts"), "alert")}

    assert set(re.findall(r"alert `([^`]+)`", SECURITY)) <= alerts
    named = {name for name in codes(SECURITY) if re.fullmatch(r"[a-z]+(_[a-z]+)+", name)}
    assert named - {"save_run"} <= set(module.variables)
    assert "save_run" in named


def test_numbers_are_true() -> None:
    """The numbers that the page names are those of the code."""
    assert f"Delivered {GroupLimits().deliveries} times" in SECURITY
    assert RETENTION.days == 7
    assert "kept seven days" in SECURITY
