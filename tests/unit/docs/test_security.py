from __future__ import annotations

import re

from tests.unit.infra.command_line import SETTINGS
from tests.unit.infra.terraform_module import TerraformModule

from run_log.projector import GroupLimits
from run_log.pubsub._provision import RETENTION

from .repository import REPOSITORY, codes, every_test, read, section, table

SECURITY = read("SECURITY.md")


def test_what_holds_a_threat_is_there() -> None:
    """Each threat says what is done, and names at least one test or file, all of which exist."""
    known = every_test()

    for threat, done, held_by, _ in table(SECURITY, "threat"):
        assert done, threat
        assert codes(held_by), threat
        assert [] == [one for one in codes(held_by) if one not in known and not (REPOSITORY / one).is_file()]


def test_every_name_on_the_page_is_there() -> None:
    """Each file, setting, target, alert and variable that the page names exists, and its numbers are true."""
    named = codes(SECURITY)
    paths = [name for name in named if "/" in name and "::" not in name and not name.startswith("roles/")]
    variables = {name.split("=")[0] for name in named if re.fullmatch(r"RUN_LOG_[A-Z_]+(=\w+)?", name)}
    targets = {name.split()[1] for name in named if name.startswith("make ")}
    alerts = {codes(row[0])[0] for row in table(section(read("docs/operations.md"), "## Alerts"), "alert")}
    of_the_module = {name for name in named if re.fullmatch(r"[a-z]+(_[a-z]+)+", name)} - {"save_run"}

    assert all((REPOSITORY / path).is_file() for path in paths)
    assert variables <= SETTINGS
    assert {"sbom", "audit"} <= targets <= set(re.findall(r"^(\w+):", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"alert `([^`]+)`", SECURITY)) <= alerts
    assert of_the_module <= set(TerraformModule().variables)
    assert f"Delivered {GroupLimits().deliveries} times" in SECURITY
    assert RETENTION.days == 7
    assert "kept seven days" in SECURITY
