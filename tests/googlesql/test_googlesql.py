"""The warehouse's views as BigQuery takes them, which DuckDB cannot tell."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from subprocess import PIPE
from typing import Final

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from tests.frameworks import framework
from tests.golden.replay import FOLDER, read
from tests.property.warehouse_cases import HALVES, NO_EVENTS, PUBLISHED_AT, WHOLE, lives, rivals, written
from tests.unit.docs import repository
from tests.unit.infra.terraform_module import TerraformModule
from tests.warehouse import check

from run_log.core import Message, RunEvent, encode_event

from .database import GoogleSQL

pytestmark = [pytest.mark.process, pytest.mark.search, pytest.mark.timeout(900)]
"""The environment may have to be fetched, and its first start compiles for a minute."""

QUERIES: Final = re.findall(
    r"\n(\S[^\n]*)\n\n```sql\n(.*?)```", repository.read("docs/warehouse.md"), re.DOTALL
)
"""With the line above each."""

COLUMN: Final = re.compile(r'\{ name = "(\w+)", type = "(\w+)", mode = "NULLABLE" \}')


@pytest.fixture(scope="module")
def google() -> Iterator[GoogleSQL]:
    """Yield Google's own code with the table that Terraform declares, and the views over it."""
    environment = framework("googlesql")
    environment.make()
    with environment.start("-m", "tests.googlesql.program", environ={}, given=PIPE) as process:
        try:
            yield GoogleSQL(process, dict(COLUMN.findall(TerraformModule().text)))
        finally:
            process.kill()


@pytest.fixture
def database(google: GoogleSQL) -> GoogleSQL:
    """Return it, if all views are there."""
    if google.refused:
        pytest.skip(f"refused: {', '.join(google.refused)}")
    return google


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    """Return one batch, the same each time: all logs ever recorded, runs of any kind, and what is none."""
    logs = (data for log in sorted(FOLDER.glob("*.jsonl")) for data in read(log))
    # BigQuery's JSON has no NaN, so a body with one is left out.
    found = [Message(data=data) for data in logs if b"NaN" not in data]
    found += (message for some in NO_EVENTS.values() for message in some)
    found += map(encode_event, rivals())

    @seed(1)
    @given(data=st.data(), events=lives())
    @settings(max_examples=12, phases=[Phase.generate], database=None, deadline=None)
    def add(data: st.DataObject, events: Sequence[RunEvent]) -> None:
        example = len(found)
        for event in events:
            # The runs of each example are other ones.
            run = event.run.model_copy(update={"id": f"{event.run.id}/{example}"})
            message = data.draw(written)(event.model_copy(update={"run": run}))
            if not _is_wide(message):
                found.append(message)

    add()
    chance = random.Random(1)
    return chance.sample(found, len(found)) + chance.sample(found, len(found) // 4)


def _is_wide(message: Message) -> bool:
    """Return whether a number is beyond 64 bits: BigQuery rounds it, which the fold does not."""
    wide: list[bool] = []
    json.loads(message.data, parse_int=lambda digits: wide.append(not -(2**63) <= int(digits) < 2**64))
    return any(wide)


def test_bigquery_takes_every_view(google: GoogleSQL) -> None:
    """GoogleSQL refuses no view over the table that Terraform declares, with what BigQuery has of it."""
    if google.refused:
        reasons = (
            f"infra/terraform/warehouse/{name}.sql: {reason}" for name, reason in google.refused.items()
        )
        pytest.fail("\n\n".join(("BigQuery would refuse views:", *reasons)), pytrace=False)


def test_whatever_comes_is_folded_alike(database: GoogleSQL, messages: list[Message]) -> None:
    """Google's own engine makes of each message what the library makes of it, out of order and repeated."""
    check(database, messages, published_at=PUBLISHED_AT)


def test_half_a_surrogate_pair(database: GoogleSQL) -> None:
    """Google's own engine leaves out of a text what no UTF-8 can hold, and nothing else."""
    database.load([encode_event(RunEvent(hlc=1, run=HALVES))], published_at=PUBLISHED_AT)

    (row,) = database.view("runs")
    assert WHOLE == json.loads(row["result"])


def test_bigquery_takes_every_query(database: GoogleSQL) -> None:
    """GoogleSQL refuses no query of the warehouse's page."""
    refused: list[str] = []
    for heading, query in QUERIES:
        try:
            database.analyze(query.replace("run_log.", ""))
        except ValueError as error:
            refused.append(f"docs/warehouse.md, {heading}\n{error}")
    if refused:
        pytest.fail("\n\n".join(("BigQuery would refuse queries:", *refused)), pytrace=False)
