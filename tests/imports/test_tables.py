from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_log.core import (
    ConfigurationError,
    InvalidArgumentError,
    NotFoundError,
    RunRef,
    RunStatus,
)
from run_log.core.models import is_trigger_word
from run_log.projector.imports import LeftOut, batches_of, csv_runs, work
from run_log.projector.imports.mapping import trigger_word
from run_log.projector.imports.tables import MAX_LINE
from run_log.testing import a_run

from .kit import REDACT, events, from_csv, from_jsonl, left_out, mapping

HEAD = "workflow_id,id,status,started_at,completed_at"
NOON = "2026-03-04T12:00:00Z"
LATER = "2026-03-04T12:00:05Z"
ROW = f"invoices,1,success,{NOON},{LATER}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a file that is not there."""
    return tmp_path / "runs.csv"


def test_columns_with_the_names_of_fields_need_no_mapping(file: Path) -> None:
    """Columns are taken by the names of fields, with keys after a dot for what is within them."""
    head = f"{HEAD},labels.customer,trigger_data.file,result,parent.workflow_id,parent.run_id,attempt"
    (event,) = events(from_csv(file, f'{head}\n{ROW},acme,may.csv,"{{""lines"": 3}}",nightly,7,2\n'))

    assert ("invoices", "1") == event.key
    assert RunStatus.SUCCESS is event.status
    assert datetime(2026, 3, 4, 12, tzinfo=UTC) == event.run.started_at
    assert 5_000 == event.run.duration_ms
    assert {"customer": "acme"} == event.run.labels
    assert {"file": "may.csv"} == event.run.trigger_data
    assert {"lines": 3} == event.run.result
    assert RunRef("nightly", "7") == event.run.parent
    assert 2 == event.run.attempt


def test_columns_constants_words_and_zones_are_mapped(file: Path) -> None:
    """Other columns, the same value for all, words of others, a zone and a format give the same run."""
    fields = mapping(
        columns={"id": "no", "status": "state", "started_at": "begun", "duration_s": "took"},
        constants={"workflow_id": "invoices", "trigger_type": "scheduled"},
        words=["All Right=success"],
        zone="Europe/Berlin",
        time_format="%d.%m.%Y %H:%M",
    )
    (event,) = events(
        from_csv(file, "no;state;begun;took\n1;ALL RIGHT;04.03.2026 13:00;1.5\n", fields, delimiter=";")
    )

    assert datetime(2026, 3, 4, 12, tzinfo=UTC) == event.run.started_at
    assert datetime(2026, 3, 4, 12, 0, 1, 500_000, tzinfo=UTC) == event.run.completed_at
    assert 1_500 == event.run.duration_ms
    assert "scheduled" == event.run.trigger_type


@pytest.mark.parametrize(
    ("unit", "text"), [("s", "1772625600.25"), ("ms", "1772625600250"), ("us", "1772625600250000")]
)
def test_times_may_be_numbers(file: Path, unit: str, text: str) -> None:
    """Seconds, milliseconds and microseconds since 1970 are exact times in UTC."""
    content = f"workflow_id,id,status,started_at\ninvoices,1,running,{text}\n"
    (event,) = events(from_csv(file, content, mapping(time_format=unit)))

    assert datetime(2026, 3, 4, 12, 0, 0, 250_000, tzinfo=UTC) == event.run.started_at


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("invoices,,success,2026-03-04T12:00:00Z,", "it has no id"),
        (",1,success,2026-03-04T12:00:00Z,", "it has no workflow_id"),
        ("invoices,1,done,2026-03-04T12:00:00Z,", "its status is unknown (pass --status done=STATUS)"),
        (
            "invoices,1,success,2026-03-04T12:00:00,",
            "its times have no time zone (pass --zone, such as UTC or Europe/Berlin)",
        ),
        ("invoices,1,success,1772625600,", "a time is not ISO 8601 (pass --time-format): '1772625600'"),
        ("invoices,1,success,yesterday,", "a time is not ISO 8601 (pass --time-format): 'yesterday'"),
        ("invoices,1,success,0001-01-01T00:00:00+14:00,", "a time is not ISO 8601"),
        ("invoices,1,success", "its line has more or fewer cells than the first: 3, not 5"),
        (f"invoices,{'1' * 2_000},success,2026-03-04T12:00:00Z,", "it is not a run: id: it has 2,000 bytes"),
    ],
)
def test_a_row_that_is_no_run_is_left_out(file: Path, row: str, why: str) -> None:
    """A row that is no run is left out with its line and what to do, and the others are taken."""
    found = from_csv(file, f"{HEAD}\n{ROW}\n{row}\n{ROW}\n")
    ((place, reason),) = left_out(found)

    assert "line 3" == place
    assert reason.startswith(why)
    assert 3 == len(found)


@pytest.mark.parametrize(
    ("what", "value"),
    [
        *((what, "[x") for what in ("attempt", "duration_ms", "result")),
        *(("attempt", value) for value in ("2.5", "True", "nan", "0", "1e999999999")),
        *((what, "nan") for what in ("duration_ms", "duration_s")),
    ],
)
def test_a_value_that_is_none_of_its_field_is_left_out(file: Path, what: str, value: str) -> None:
    """A number that is none, or an object that is none, leaves the row out."""
    ((_, why),) = left_out(from_csv(file, f"{HEAD},{what}\n{ROW},{value}\n"))

    assert "no number" in why or "no JSON object" in why


@pytest.mark.parametrize(
    "content",
    [
        f"\ufeff{HEAD}\r\n{ROW}\r\n".encode(),
        f"{HEAD}\r{ROW}\r".encode(),
        f"{HEAD}\n\n{ROW}\n\n".encode(),
        f"{HEAD}\n{ROW}".encode(),
    ],
    ids=["byte order mark and CRLF", "CR", "blank lines", "no line end"],
)
def test_line_ends_and_marks_do_not_matter(file: Path, content: bytes) -> None:
    """A byte order mark, any line ends and blank lines change nothing."""
    (event,) = events(from_csv(file, content))

    assert ("invoices", "1") == event.key


def test_text_in_another_encoding_is_left_out_until_it_is_named(file: Path) -> None:
    """Rows whose bytes are not in the encoding are left out with a hint; with --encoding they are taken."""
    content = f"{HEAD},error\n{ROW},gr\xfcn\n{ROW},plain\n".encode("latin-1")
    found = from_csv(file, content)
    ((place, why),) = left_out(found)

    assert ("line 2", 2) == (place, len(found))
    assert "pass --encoding" in why
    assert "grün" == events(from_csv(file, content, encoding="cp1252"))[0].run.error
    wide = events(from_csv(file, content.decode("latin-1").encode("utf-16"), encoding="utf-16"))
    assert ["grün", "plain"] == [event.run.error for event in wide]


def test_nul_characters_and_quoted_lines_are_kept(file: Path) -> None:
    """A text may hold NUL, quotes and line ends; the place of what follows counts lines of the file."""
    found = from_csv(file, f'{HEAD},error\n{ROW},"a\x00b ""c""\nd"\ninvoices,2,odd,{NOON},,\n')

    assert 'a\x00b "c"\nd' == events(found[:1])[0].run.error
    assert [("line 4", "its status is unknown (pass --status odd=STATUS)")] == left_out(found[1:])


def test_a_huge_field_is_cut_and_what_is_beyond_the_limit_left_out(file: Path) -> None:
    """A field of megabytes is cut to what a run holds; one beyond the limit leaves only its own row out."""
    rows = [f'{ROW},"{"x" * size}"' for size in (2_000_000, MAX_LINE + 10, 1)]
    found = from_csv(file, "\n".join([f"{HEAD},result.text", *rows]))
    taken = events([found[0], found[2]])

    assert 800_000 >= len(json.dumps(taken[0].run.result))
    assert [("line 3", f"its line has more than {MAX_LINE:,} characters")] == left_out(found)
    assert {"text": "x"} == taken[1].run.result


def test_a_missing_quote_is_told_with_its_lines(file: Path) -> None:
    """A missing quote makes one row of many lines, which is left out with where it begins and ends."""
    line = "y" * 1_000_000
    found = from_csv(file, "\n".join([f"{HEAD},error", f'{ROW},"x', *([line] * 12), f"{ROW},"]))
    places = left_out(found)

    assert places[0][0].startswith("lines 2 to ")
    assert "is a quote missing?" in places[0][1]
    assert ("invoices", "1") == events(found[-1:])[0].key


@pytest.mark.parametrize("last", ["", "\n" + ROW + ',"fine"'], ids=["the end", "another quote"])
def test_a_missing_quote_takes_no_other_row_into_its_field(file: Path, last: str) -> None:
    """A quote in the last column that nothing closes leaves its row out. Its field never has other rows."""
    found = from_csv(file, f'{HEAD},error\n{ROW},"open\n{ROW},\n{ROW},{last}')

    assert [("lines 2 to", "is a quote missing?")] == [
        (place[:10], why[len("its line is not CSV (") :].partition(")")[0]) for place, why in left_out(found)
    ]


@pytest.mark.parametrize("text", ["nan", "inf", "1e999999", "1e9999999999999999999"])
def test_numbers_that_are_no_times_are_left_out(file: Path, text: str) -> None:
    """A number beyond all times leaves its row out, and ends nothing."""
    found = from_csv(
        file, f"workflow_id,id,status,started_at\nw,1,success,{text}\n", mapping(time_format="ms")
    )

    assert "a time is not --time-format ms" in left_out(found)[0][1]


def test_an_attempt_as_spreadsheets_write_it(file: Path) -> None:
    """A whole number may be written with a decimal point."""
    (event,) = events(from_csv(file, f"{HEAD},attempt\n{ROW},2.0\n"))

    assert 2 == event.run.attempt


async def test_rows_that_are_large_are_read_in_small_batches(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read together is bounded, however large rows are, and no run holds its row."""
    monkeypatch.setattr(work, "BATCH_CHARACTERS", 2_000)
    row = f"{ROW},{'x' * 600}\n"
    from_csv(file, f"{HEAD},error\n{row * 6}")

    batches = [batch async for batch in batches_of(csv_runs(str(file), mapping(), redact=REDACT))]
    assert [4, 2] == [len(batch) for batch in batches]
    assert not any(each.record for batch in batches for each in batch)


def test_wrong_calls_say_what_to_pass(file: Path, tmp_path: Path) -> None:
    """A missing column, file, encoding or delimiter, and a wrong option, are errors that say what to do."""
    with pytest.raises(InvalidArgumentError, match="no column 'workflow_id', it has: a, b; pass --map"):
        from_csv(file, "a,b\n1,2\n")
    with pytest.raises(InvalidArgumentError, match=r"names one column, .*; pass --delimiter ';'"):
        from_csv(file, HEAD.replace(",", ";"))
    with pytest.raises(InvalidArgumentError, match=r"pass --delimiter '\\t'"):
        from_csv(file, HEAD.replace(",", "\t"))
    with pytest.raises(InvalidArgumentError, match=r"does not name columns: .*such as cp1252 or utf-16"):
        from_csv(file, HEAD.encode("utf-16"))
    with pytest.raises(InvalidArgumentError, match="has no column 'no'"):
        from_csv(file, f"{HEAD}\n{ROW}\n", mapping(columns={"id": "no"}))
    with pytest.raises(InvalidArgumentError, match="has two columns 'id'"):
        from_csv(file, "workflow_id,id,status,started_at,id\n")
    with pytest.raises(InvalidArgumentError, match="--delimiter ';;' is not one character"):
        from_csv(file, HEAD, delimiter=";;")
    with pytest.raises(InvalidArgumentError, match="--encoding 'utf-9' is none"):
        from_csv(file, HEAD, encoding="utf-9")
    with pytest.raises(InvalidArgumentError, match="'colour' is no field of a run; the fields are work"):
        mapping(columns={"colour": "a"})
    with pytest.raises(InvalidArgumentError, match="the field 'id' is given twice"):
        mapping(columns={"id": "a"}, constants={"id": "b"})
    with pytest.raises(InvalidArgumentError, match=r"'labels.The Key' is no field .* a key is at most 63 of"):
        mapping(columns={"labels.The Key": "a"})
    with pytest.raises(InvalidArgumentError, match="--zone 'Mars' is no time zone"):
        mapping(zone="Mars")
    with pytest.raises(InvalidArgumentError, match="--status 'a=fine' is not WORD=STATUS; the statuses"):
        mapping(words=["a=fine"])
    with pytest.raises(NotFoundError, match="there is no file"):
        next(csv_runs(str(tmp_path / "none"), mapping(), redact=REDACT))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        next(csv_runs(str(tmp_path), mapping(), redact=REDACT))


@pytest.mark.parametrize("time_format", ["%Q", "%d %d", "%", "%G-%V", "seconds", ""])
def test_a_format_in_which_no_time_can_be_is_an_error(time_format: str) -> None:
    """A time format that is none is told at once, and not for each row."""
    with pytest.raises(InvalidArgumentError, match=f"--time-format {time_format!r} is no format of strptime"):
        mapping(time_format=time_format)


@pytest.mark.parametrize("time_format", ["%c", "%I:%M %p %x", "%G-W%V-%u", "%y %B %z", "us"])
def test_any_other_format_is_taken(time_format: str) -> None:
    """A time format that a time can have is no error, whatever it leaves out."""
    mapping(time_format=time_format)


@pytest.mark.parametrize(
    "constant",
    [
        ("status", "odd"),
        ("attempt", "x"),
        ("duration_s", "long"),
        ("result", "[]"),
        ("started_at", "noon"),
        ("id", "x" * 2_000),
    ],
)
def test_a_constant_that_no_run_can_have_is_an_error(constant: tuple[str, str]) -> None:
    """The same value for all that leaves all out is told at once, and not for each row."""
    with pytest.raises(InvalidArgumentError, match="a --set has a value that no run can have"):
        mapping(constants=dict([constant]))


def test_half_of_a_parent_may_be_constant(file: Path) -> None:
    """A constant may need a column to mean something."""
    fields = mapping(columns={"parent.run_id": "of"}, constants={"parent.workflow_id": "nightly"})
    (event,) = events(from_csv(file, f"{HEAD},of\n{ROW},7\n", fields))

    assert RunRef("nightly", "7") == event.run.parent


def test_what_of_a_run_cannot_be_kept_is_counted(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Labels, parents and parts of pauses that cannot be kept, and cuts, are told with their run."""
    record = {"workflow_id": "w", "id": "1", "status": "paused", "started_at": NOON}
    faults = (
        ({"labels": {"The Key": "a", "kept": "b"}}, "labels"),
        ({"parent": {"id": 3}}, "parent"),
        ({"pause": {"reason": "why", "form": {"type": 7}}}, "pause"),
        ({"result": {"rows": "x" * 2_000_000}}, "too large"),
        ({"labels": {"kept": "b"}}, None),
    )
    found = from_jsonl(file, "\n".join(json.dumps({**record, **fault}) for fault, _ in faults))

    assert {"kept": "b"} == events(found)[0].run.labels
    for each, (_, word) in zip(found, faults, strict=True):
        assert bool(word) == bool(each.without)
        assert (word or "") in "".join(each.without)
    assert not caplog.records


def test_columns_that_are_no_field_are_told(file: Path) -> None:
    """What the mapping does not use is named, so that nobody takes it for imported."""
    fields = mapping()
    from_csv(file, f"{HEAD},host,labels.a\n{ROW},h,b\n", fields)

    assert ["host"] == [*fields.unused]


def test_json_lines_hold_objects(file: Path) -> None:
    """A column may be a path into objects, values keep their types, and what is no object is left out."""
    record = {"run": {"id": 7, "state": "RunStatus.FAILED"}, "at": NOON, "more": {"a": [1, None]}}
    content = "\n".join([json.dumps(record), "[1]", "{", '{"a": ' * 600 + "1" + "}" * 600, ""])
    fields = mapping(
        columns={"id": "run.id", "status": "run.state", "started_at": "at", "result": "more"},
        constants={"workflow_id": "invoices"},
    )
    found = from_jsonl(file, content, fields)
    run = events(found[:1])[0].run

    assert ("invoices", "7") == run.key
    assert (RunStatus.FAILED, {"a": [1, None]}) == (run.status, run.result)
    assert ["line 2", "line 3", "line 4"] == [place for place, _ in left_out(found)]
    assert "jq -c" in left_out(found)[0][1]


def test_dumps_of_the_predecessor_need_no_mapping(file: Path) -> None:
    """The golden dumps of the service that run-log began from are read as they are, times as texts."""
    golden = Path(__file__).resolve().parents[1] / "golden" / "v0-dumps.jsonl"
    found = from_jsonl(file, golden.read_bytes(), mapping(zone="UTC"))

    # Three of them are no runs: they are without a start, of an unknown status, of no workflow.
    assert ["line 12", "line 13", "line 15"] == [place for place, _ in left_out(found)]
    taken = events(each for each in found if not isinstance(each.what, LeftOut))
    assert {"a", "b", "c", "d", "e"} <= {event.run.id for event in taken}


def test_what_queries_print_can_be_imported(file: Path) -> None:
    """The JSON form of a run is read back as the same run."""
    run = a_run(status=RunStatus.PAUSED, labels={"customer": "acme"}, result={"n": [1, {"": None}]})
    (event,) = events(from_jsonl(file, json.dumps(run.to_json())))

    assert run == event.run


def test_secrets_are_replaced(file: Path) -> None:
    """Secrets in payloads and errors are replaced before the run is stored."""
    content = f"{HEAD},trigger_data.password,error\n{ROW},hunter2,at postgres://u:hunter2@h\n"
    (event,) = events(from_csv(file, content))

    assert "hunter2" not in json.dumps(event.run.to_json())


@given(st.text(max_size=100))
def test_any_text_becomes_a_trigger_word(text: str) -> None:
    """Whatever stands as what started a run becomes a word that a run can have."""
    assert is_trigger_word(trigger_word(text))


def test_trigger_words_stay_readable() -> None:
    """A word stays itself, and others become words that look like them."""
    words = ["scheduled", "File Upload", "TriggerType.GMAIL_PUSH", "9", ""]

    assert ["scheduled", "file_upload", "gmail_push", "manual", "manual"] == [*map(trigger_word, words)]
