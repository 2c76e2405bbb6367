"""What the workers of the pipeline do, without Beam; with it: tests/emulator/test_beam.py."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import pairwise

import pytest

from run_log.core import (
    Message,
    Outcome,
    RunEvent,
    StoreUnavailableError,
    WriteRefusedError,
    decode_event,
    encode_event,
)
from run_log.core.install import how_to_install
from run_log.core.law import FoldedRun
from run_log.core.nearest import CUT_MARKER
from run_log.projector.beam import __main__ as program
from run_log.projector.beam.__main__ import parse
from run_log.projector.beam.steps import MAX_BYTES, MAX_RUNS, RunWriter, Written, folded, read_events
from run_log.testing import an_event

from .archives import lines

TOLD = ["--input", "a/**", "--into", "other", "--rejects", "r"]


class MergedTogether:
    """Keeps which runs were merged together, after raising the errors it is given; refuses some runs."""

    def __init__(self, errors: Sequence[Exception] = (), refuses: Sequence[str] = ()) -> None:
        self._errors = iter(errors)
        self._refuses = set(refuses)
        self.calls: list[list[str]] = []
        self.is_closed = False

    async def merge(self, runs: Sequence[FoldedRun]) -> list[Outcome]:
        """See `ClosableStore.merge`."""
        await asyncio.sleep(0)
        error = next(self._errors, None)
        if error is not None:
            raise error
        ids = [run.event.run.id for run in runs]
        if self._refuses & set(ids):
            raise WriteRefusedError("refused")
        self.calls.append(ids)
        return [Outcome.APPLIED] * len(runs)

    async def close(self) -> None:
        """See `ClosableStore.close`."""
        self.is_closed = True


def runs(count: int, *, size: int = 1) -> list[FoldedRun]:
    """Return so many runs, of about so many bytes each."""
    return [folded(an_event(id=f"r{number}", result={"text": "x" * size})) for number in range(count)]


OpenWriter = Callable[[MergedTogether], RunWriter]


@pytest.fixture
def open_writer() -> Iterator[OpenWriter]:
    """Yield what makes writers into a store, which are closed at the end."""
    with ExitStack() as writers:
        yield lambda store: writers.enter_context(closing(RunWriter(lambda: store)))


def test_runs_are_written_as_a_commit_holds_them(open_writer: OpenWriter) -> None:
    """Runs wait until they are as many as a commit holds, or their bytes are; the others come at the end."""
    store = MergedTogether()
    writer = open_writer(store)

    many = [writer.add(run) for run in runs(MAX_RUNS)]
    large = [writer.add(run) for run in runs(4, size=MAX_BYTES // 4)]
    last = writer.write()

    assert [None] * (MAX_RUNS - 1) + [Written(runs=MAX_RUNS, rejects=[])] == many
    assert [None, None, None, Written(runs=3, rejects=[])] == large
    assert Written(runs=1, rejects=[]) == last
    assert [MAX_RUNS, 3, 1] == [len(call) for call in store.calls]


def test_nothing_is_written_for_nothing(open_writer: OpenWriter) -> None:
    """A bundle without runs writes nothing."""
    store = MergedTogether()

    assert Written(runs=0, rejects=[]) == open_writer(store).write()
    assert [] == store.calls


def test_what_is_refused_stands_alone(open_writer: OpenWriter) -> None:
    """A run that the store refuses is told as a line, with where it is and why; the others are written."""
    writer = open_writer(MergedTogether(refuses=["r3"]))
    for run in runs(6):
        writer.add(run)

    written = writer.write()

    (line,) = written.rejects
    reject = json.loads(line)
    assert (5, "workflow-1/r3", "write_refused", "refused") == (
        written.runs,
        reject["place"],
        reject["reason"],
        reject["error"],
    )
    assert "r3" == json.loads(reject["body"])["run"]["id"]


def test_a_bundle_begins_anew() -> None:
    """What a failed bundle left is forgotten: all of it is given again."""
    store = MergedTogether([StoreUnavailableError("away")])
    writer = RunWriter(lambda: store)
    for run in runs(3):
        writer.add(run)
    with pytest.raises(StoreUnavailableError):
        writer.write()
    writer.add(folded(an_event(id="of a bundle that ended early")))

    writer.begin()
    for run in runs(3):
        writer.add(run)
    writer.write()
    writer.close()

    assert [["r0", "r1", "r2"]] == store.calls
    assert store.is_closed


def test_what_is_no_event_is_told() -> None:
    """What is no event becomes a line with its place and reason, and what is too large is cut."""
    event = an_event()
    large = json.loads(encode_event(event).data)
    large["run"]["result"] = {"text": "x" * 1_100_000}
    content = b"no JSON\n" + lines([event]) + b"{}\n" + json.dumps(large).encode() + b"\n{"
    cut = decode_event(Message(data=json.dumps(large).encode()))

    found = list(read_events("f", io.BytesIO(content)))

    assert [event, cut] == [one for one in found if isinstance(one, RunEvent)]
    assert {"text": f"{CUT_MARKER}, 1100002 bytes"} == cut.run.result
    rejects = [json.loads(one) for one in found if isinstance(one, str)]
    assert [
        ("f:1", "undecodable"),
        ("f:3", "unknown_type"),
        ("f:5", "undecodable"),
    ] == [(reject["place"], reject["reason"]) for reject in rejects]


def test_what_it_is_told() -> None:
    """Options and settings say what is done; all that is not ours is Beam's, and the project is both's."""
    environ = {"GOOGLE_CLOUD_PROJECT": "p", "RUN_LOG_STATS_SHARDS": "4", "RUN_LOG_RETENTION_DAYS": "9"}

    rebuild, others = parse([*TOLD, "--input", "b", "--runner", "DataflowRunner"], environ)

    assert (("a/**", "b"), "other", "r") == (rebuild.files, rebuild.into, rebuild.rejects)
    assert ("p", 4, 9) == (
        rebuild.settings.project,
        rebuild.settings.stats_shards,
        rebuild.settings.retention_days,
    )
    assert ["--runner", "DataflowRunner", "--project=p"] == others


@pytest.mark.parametrize(
    ("told", "environ", "project", "others"),
    [
        (["--project", "q"], {"GOOGLE_CLOUD_PROJECT": "p"}, "q", ["--project=q"]),
        ([], {}, None, []),
    ],
    ids=["told", "left to the credentials"],
)
def test_the_project(
    told: list[str], environ: dict[str, str], project: str | None, others: list[str]
) -> None:
    """The option ``--project`` goes before ``GOOGLE_CLOUD_PROJECT``, for Firestore and for Beam."""
    rebuild, left = parse([*TOLD, *told], environ)

    assert (project, others) == (rebuild.settings.project, left)


@pytest.mark.parametrize(
    ("into", "environ", "hint"),
    [
        ("autopilot_runs", {}, "is the live root collection"),
        ("a/b", {}, "no Firestore collection id"),
        ("other", {"RUN_LOG_BACKEND": "sqlite"}, "use `run-log rebuild` for a file"),
        ("other", {"RUN_LOG_RETENTION": "30"}, "did you mean RUN_LOG_RETENTION_DAYS?"),
    ],
)
def test_what_cannot_be_done(
    into: str, environ: Mapping[str, str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What settings forbid is refused before Beam is looked for, with 2 and one line that says what to do."""
    told = [into if word == "other" else word for word in TOLD]

    assert 2 == program.main(told, environ)
    (line,) = capsys.readouterr().err.splitlines()
    assert hint in line


@pytest.mark.parametrize("absent", ["--input", "--into", "--rejects"])
def test_what_has_to_be_told(absent: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an option that it needs, the program ends with 2 and names it."""
    pairs = list(pairwise(TOLD))[::2]

    with pytest.raises(SystemExit, match="2"):
        program.main([word for pair in pairs if pair[0] != absent for word in pair], {})

    assert absent in capsys.readouterr().err.splitlines()[-1]


WITHOUT_BEAM = """
import sys
sys.modules["apache_beam"] = None
"""


@pytest.mark.process
def test_beam_is_not_installed() -> None:
    """Without Beam the program ends with 2 and one line that says what to install."""
    code = f"{WITHOUT_BEAM}from run_log.projector.beam.__main__ import main\nsys.exit(main({TOLD!r}, {{}}))"

    result = subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    (line,) = result.stderr.splitlines()
    assert (2, True) == (result.returncode, line.endswith(how_to_install("beam")))


@pytest.mark.process
def test_build_is_there_with_beam_only() -> None:
    """Without Beam, importing `build` raises an error that says what to install; no other name is there."""
    code = (
        f"{WITHOUT_BEAM}import run_log.projector.beam as package\n"
        "assert not hasattr(package, 'other')\n"
        "try:\n    package.build\nexcept ImportError as error:\n    print(error)\n"
    )

    result = subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert ("", True) == (result.stderr, result.stdout.endswith(f"{how_to_install('beam')}\n"))
