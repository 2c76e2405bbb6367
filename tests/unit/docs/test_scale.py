from __future__ import annotations

import math
from typing import Any, Final

import pytest
from tests.unit.infra.terraform_module import TerraformModule

from run_log.core.nearest import MAX_PAYLOAD_BYTES
from run_log.core.settings import MAX_STATS_SHARDS
from run_log.projector import GroupLimits
from run_log.stores.committing.commits import MAX_COMMIT_BYTES, MAX_COMMIT_RUNS
from run_log.stores.stored.fields import SHARDS

from .repository import codes, one_line, read, table
from .sizes import document_bytes, index_entries, life, message_bytes, row_bytes

SCALE = read("docs/scale.md")
TEXT = one_line(SCALE)
INPUTS: Final = {
    codes(row[0])[0]: float(row[1].replace(",", ""))
    for head in ("input", "price", "limit")
    for row in table(SCALE, head)
}
RESULTS: Final = [row for row in table(SCALE, "figure") if row[1]]


def shown(value: float) -> str:
    """Return *value* as the page shows it: three digits that count, and commas between thousands."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 1_000 else f"{rounded:g}"


def _computed(rate: int) -> dict[str, Any]:
    """Return the inputs, and every result worked out from them at *rate* events a second."""
    names: dict[str, Any] = {"ceil": math.ceil, "log": math.log, "max": max, **INPUTS, "rate": rate}
    for name, formula, *_ in RESULTS:
        # Only what stands in our own document, and only with what the page has named before.
        names[codes(name)[0]] = eval(codes(formula)[0], {"__builtins__": {}}, names)  # noqa: S307
    return names


COMPUTED: Final = [_computed(rate) for rate in (10, 1_000, 100_000)]


def test_the_figures() -> None:
    """Every figure is what its formula makes of the inputs; those at the top of the page are the same."""
    first = {row[0]: row[1:] for row in table(SCALE, "")}
    rows = [(codes(row[0])[0], row[2:]) for row in RESULTS]
    rows += [("total_usd", first["US dollars a month, at most"]), ("projectors", first["projectors"])]
    rows += [("warehouse_usd", first["with a [warehouse](#database-and-warehouse), this much more"])]

    for name, cells in rows:
        assert [shown(known[name]) for known in COMPUTED] == cells, name


def test_a_hot_workflow() -> None:
    """How often a shard of a hot workflow's stats is written follows from the inputs."""
    most = INPUTS["in_flight"] / INPUTS["commit_seconds"]

    for row in table(SCALE, "events/s of the workflow"):
        rate, shards = float(row[0]), float(row[1])
        commits = min(rate, most)
        runs = math.ceil(rate / commits)
        writes = commits * (1 - (1 - 1 / shards) ** runs)
        assert [shown(commits), shown(runs), shown(writes)] == row[2:]
    assert f"= {shown(most)} commits a second at most" in TEXT
    assert f"up to {shown(most)} events a second, use as many shards" in TEXT
    assert f"counts {MAX_COMMIT_RUNS / INPUTS['commit_seconds']:,.0f} runs a second" in TEXT


def test_sizes() -> None:
    """The sizes are those of a typical run's messages, documents and index entries."""
    events = life()
    body, attributes = message_bytes()
    entries = index_entries(events)

    assert f"{body:.0f} of body, {attributes:.0f} of attributes, 37 of time and message id" in TEXT
    assert round(body + attributes) + 37 == INPUTS["message_bytes"]
    assert round(row_bytes()) == INPUTS["row_bytes"]
    assert len(events) == INPUTS["events_per_run"]
    assert document_bytes(events) == INPUTS["document_bytes"]
    assert sum(entries) == INPUTS["index_bytes"]
    assert f"its {len(entries)} index entries, {len(index_entries(events[:1]))} while it is running" in TEXT


def test_what_the_code_decides() -> None:
    """Inputs and limits that are the code's are as they are there."""
    limits = GroupLimits()

    assert limits.in_flight == INPUTS["in_flight"]
    assert SHARDS == INPUTS["shards"]
    assert limits.batch == MAX_COMMIT_RUNS
    assert f"with {limits.batch} in each" in TEXT
    assert f"a batch gathers ({limits.gather_seconds * 1000:.0f} ms)" in TEXT
    assert f"commits end at {MAX_COMMIT_BYTES // 2**20} MiB of 10 MiB" in TEXT
    assert f"cut at {MAX_PAYLOAD_BYTES:,} bytes" in TEXT
    assert f"`RUN_LOG_STATS_SHARDS` of them ({MAX_STATS_SHARDS} at most)" in TEXT


def test_what_terraform_decides() -> None:
    """Inputs that the Terraform module decides are its defaults."""
    module = TerraformModule()

    assert module.value("${var.topic_retention_days}") == INPUTS["topic_days"]
    assert module.value("${var.run_retention_days}") is None
    assert module.value("${var.warehouse_retention_days}") is None
    assert module.value("${var.warehouse_enabled}") is False
    assert module.variables["projector_limits"]["default"] == {"cpu": "1", "memory": "512Mi"}
    assert "1 vCPU at 0.000018, 0.5 GiB at 0.000002 a GiB" in TEXT
    assert 0.000018 + 0.5 * 0.000002 == pytest.approx(INPUTS["p_instance"])


def test_where_it_is_from() -> None:
    """What was measured stands among the measurements; each limit and each page of prices is linked."""
    measured = one_line(read("docs/performance.md"))

    assert "made 8,480 events/s (4,760 run documents/s)" in measured
    assert "4,760 run documents/s of 8,480 events/s" in TEXT
    assert round(4_760 / 8_480, 2) == INPUTS["folded_writes"]
    assert f"takes 115 to {INPUTS['cpu_us']:.0f} us of CPU an event" in measured
    assert all("](" in row[-1] or row[-1] == "the same" for row in table(SCALE, "limit"))
    for service in ("pubsub", "firestore", "run"):
        assert f"(https://cloud.google.com/{service}/pricing) (" in TEXT


def test_both_bills() -> None:
    """What database and warehouse cost beside each other are the figures of the tables."""
    written = [known["loaded_usd"] + known["rows_usd"] for known in COMPUTED]

    for row, known, usd in zip(table(SCALE, "events a second"), COMPUTED, written, strict=True):
        figures = (known["database_usd"], usd, known["question_usd"])
        assert [f"{known['rate']:,}", *map(shown, figures)] == row
    assert COMPUTED[-1]["database_usd"] / written[-1] == pytest.approx(25, rel=0.02)
    assert "events for a 25th of what the database costs" in TEXT
    assert f"with {INPUTS['run_days']:.0f} days kept" in TEXT
    most = INPUTS["write_bytes"] / INPUTS["row_bytes"]
    assert (
        f"{INPUTS['write_bytes'] / 10**6:.0f} MB a second in a region are {shown(most)} events a second"
        in TEXT
    )


def test_what_the_text_says() -> None:
    """Figures in sentences are those of the tables."""
    _, thousand, most = COMPUTED
    slow = 1_000 * 10 * INPUTS["commit_seconds"] / INPUTS["in_flight"]

    assert "one projector's eighth of a CPU" in TEXT
    assert 1 / 8 == pytest.approx(thousand["cores"], rel=0.1)
    assert f"about {SHARDS * INPUTS['sequential_writes']:,.0f} run documents a second, fourteen" in TEXT
    assert 14 == math.floor(most["changes_share"])
    assert f"at least {math.ceil(most['changes_share'])}." in TEXT
    assert f"{most['projectors']} of them, some {most['events_per_commit']:.0f} events in each commit" in TEXT
    assert f"gather to {slow:.0f} a commit" in TEXT
    assert most["events_per_commit"] < MAX_COMMIT_RUNS < 10 * most["events_per_commit"]
    assert most["writes_usd"] / most["total_usd"] == pytest.approx(0.65, abs=0.01)
    assert "Nearly two thirds of the cost" in TEXT
    assert f"storage grows by {thousand['stored_gib_day']:.0f} GiB a day" in TEXT
    assert thousand["ramp_minutes"] <= 30
    assert "let it grow for half an hour" in TEXT
    assert f"are {most['rate'] * INPUTS['message_bytes'] / 10**6:.1f} MB/s" in TEXT
