from __future__ import annotations

import math
import re
from typing import Any, Final

import pytest
from tests.unit.infra.terraform_module import TerraformModule

from run_log.core.nearest import MAX_PAYLOAD_BYTES
from run_log.core.settings import MAX_STATS_SHARDS
from run_log.projector import GroupLimits
from run_log.pubsub.connection import MAX_MESSAGE_BYTES
from run_log.stores.committing.commits import MAX_COMMIT_BYTES, MAX_COMMIT_RUNS, MAX_STATS_CHANGES
from run_log.stores.stored.fields import CHANGED_SHARDS, MAX_DOCUMENT_BYTES

from .repository import codes, one_line, read, section, table
from .sizes import attribute_bytes, body_bytes, document_bytes, index_entries, life

SCALE = read("docs/scale.md")
TEXT = one_line(SCALE)
RATES: Final = (10, 1_000, 100_000)

_FUNCTIONS: Final[dict[str, Any]] = {"ceil": math.ceil, "log": math.log, "max": max}


def shown(value: float) -> str:
    """Return *value* as the page shows it: three digits that count, and commas between thousands."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 1_000 else f"{rounded:g}"


def _number(cell: str) -> float:
    return float(cell.replace(",", ""))


def _inputs() -> dict[str, float]:
    """Return what goes into the arithmetic: inputs, prices and limits, by name."""
    rows = [row for head in ("input", "price", "limit") for row in table(SCALE, head)]
    return {codes(row[0])[0]: _number(row[1]) for row in rows}


def _results() -> list[tuple[str, str, list[str]]]:
    """Return each row of results: what it is called, its formula, and what is shown for each rate."""
    sections = (section(SCALE, "## What comes out"), section(SCALE, "## Limits"))
    rows = [row for part in sections for row in table(part, "figure") if row[1]]
    return [(codes(row[0])[0], codes(row[1])[0], row[2:]) for row in rows]


def _computed() -> list[dict[str, float]]:
    """Return all that is known at each rate: the inputs, and every result worked out from them."""
    known: list[dict[str, Any]] = [{**_FUNCTIONS, **_inputs(), "rate": rate} for rate in RATES]
    for name, formula, _ in _results():
        for names in known:
            # Only what stands in our own document, and only with what the page has named before.
            names[name] = eval(formula, {"__builtins__": {}}, names)  # noqa: S307
    return known


def test_the_figures() -> None:
    """Every figure is what its formula makes of the inputs and the figures before it."""
    computed = _computed()

    for name, _, cells in _results():
        assert [shown(known[name]) for known in computed] == cells, name


def test_the_summary() -> None:
    """The figures at the top of the page are those below."""
    ten, thousand, hundred_thousand = _computed()

    first = {row[0]: row[1:] for row in table(SCALE, "") if row[0]}
    for row, name in (("US dollars a month, at most", "total_usd"), ("projectors", "projectors")):
        assert [shown(known[name]) for known in (ten, thousand, hundred_thousand)] == first[row]


def test_a_hot_workflow() -> None:
    """How often a shard of a hot workflow's stats is written follows from the inputs."""
    inputs = _inputs()
    most = inputs["in_flight"] / inputs["commit_seconds"]

    rows = table(SCALE, "events/s of the workflow")
    for rate, shards, *cells in rows:
        commits = min(_number(rate), most)
        runs = math.ceil(_number(rate) / commits)
        writes = commits * (1 - (1 - 1 / _number(shards)) ** runs)
        assert [shown(commits), shown(runs), shown(writes)] == cells
    assert max(_number(row[1]) for row in rows) == MAX_STATS_SHARDS
    assert f"= {shown(most)} commits a second at most" in TEXT
    written = 16 * (1 - (1 - 1 / 16) ** math.ceil(500 / most))
    assert f"(at 500 events/s over 16 shards, a commit writes some {written:.0f} of them)" in TEXT


def test_sizes() -> None:
    """The sizes are those of a typical run's messages, documents and index entries."""
    inputs = _inputs()
    events = life()

    assert round(body_bytes()) == inputs["body_bytes"]
    assert attribute_bytes() == inputs["attribute_bytes"]
    assert len(events) == inputs["events_per_run"]
    assert document_bytes(events) == inputs["document_bytes"]
    assert (len(index_entries(events)), sum(index_entries(events))) == (
        inputs["index_entries"],
        inputs["index_bytes"],
    )
    assert f"{len(index_entries(events[:1]))} while it is running" in TEXT


def test_what_the_code_decides() -> None:
    """Inputs and limits that are the code's are as they are there."""
    inputs = _inputs()
    limits = GroupLimits()

    assert MAX_COMMIT_RUNS == limits.batch == inputs["batch"]
    assert limits.in_flight == inputs["in_flight"]
    assert f"a batch gathers ({limits.gather_seconds * 1000:.0f} ms)" in TEXT
    assert CHANGED_SHARDS == inputs["changed_shards"]
    assert MAX_STATS_CHANGES == inputs["transforms"]
    assert MAX_DOCUMENT_BYTES == inputs["document_mib"] * 2**20
    assert MAX_MESSAGE_BYTES == inputs["message_mb"] * 10**6
    assert MAX_COMMIT_BYTES < inputs["request_mib"] * 2**20
    assert f"ours end at {MAX_COMMIT_BYTES // 2**20} MiB" in TEXT
    assert f"cut at {MAX_PAYLOAD_BYTES:,} bytes" in TEXT
    assert f"`RUN_LOG_STATS_SHARDS` of them ({MAX_STATS_SHARDS} at most)" in TEXT


def test_what_terraform_decides() -> None:
    """Inputs that the Terraform module decides are its defaults."""
    inputs = _inputs()
    module = TerraformModule()
    limits = module.variables["projector_limits"]["default"]

    assert module.value("${var.topic_retention_days}") == inputs["topic_days"]
    assert module.value("${var.run_retention_days}") is None
    assert limits == {"cpu": f"{inputs['vcpus']:g}", "memory": f"{inputs['memory_gib'] * 1024:g}Mi"}
    assert set(re.findall(r"`(\w+_(?:days|limits))`", SCALE)) <= set(module.variables) | set(inputs)


def test_what_was_measured() -> None:
    """What the page takes from the measurements stands there."""
    inputs = _inputs()
    measured = one_line(read("docs/performance.md"))

    events, documents = 8_480, 4_760
    assert f"made {events:,} events/s ({documents:,} run documents/s)" in measured
    assert f"{documents:,} run documents/s of {events:,} events/s" in TEXT
    assert round(documents / events, 2) == inputs["folded_writes"]
    assert f"takes 115 to {inputs['cpu_us']:.0f} us of CPU an event" in measured


@pytest.mark.parametrize("head", ["price", "limit"])
def test_each_has_a_source(head: str) -> None:
    """Each price and each limit says where it is from; "the same" is the row before it."""
    sources = [row[-1] for row in table(SCALE, head)]

    assert "](" in sources[0]
    assert all("](" in source or source.startswith("the same") for source in sources)


def test_what_the_text_says() -> None:
    """Figures in sentences are those of the tables."""
    ten, thousand, most = _computed()
    inputs = _inputs()

    assert "one projector's eighth of a CPU" in TEXT
    assert 1 / 8 == pytest.approx(thousand["cores"], rel=0.1)
    assert ten["changes_share"] < thousand["changes_share"] < 1 < most["changes_share"]
    assert f"about {most['changes_most']:,.0f} run documents a second, twelve times less" in TEXT
    assert 12 == math.floor(most["changes_share"])
    assert f"{math.ceil(most['changes_share'])} of them at least for 100,000 events a second" in TEXT
    assert f"{most['projectors']} of them, some {most['events_per_commit']:.0f} events in each commit" in TEXT
    assert most["events_per_commit"] < inputs["batch"] < 10 * most["events_per_commit"]
    assert f"gather to {1_000 / (inputs['in_flight'] / (10 * inputs['commit_seconds'])):.0f} a commit" in TEXT
    assert most["writes_usd"] / most["total_usd"] == pytest.approx(2 / 3, rel=0.01)
    assert f"it is {thousand['stored_gib_day']:.0f} GiB a day otherwise" in TEXT
    assert thousand["ramp_minutes"] <= 30
    assert "let it grow for half an hour" in TEXT
    assert ten["retained_usd"] > ten["throughput_usd"]
    assert inputs["index_bytes"] > inputs["document_bytes"]
    assert 500 / thousand["rate"] == 0.5
    assert f"counts {inputs['batch'] / inputs['commit_seconds']:,.0f} runs a second" in TEXT
