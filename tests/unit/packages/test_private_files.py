from __future__ import annotations

import ast
import asyncio
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from run_log.console.work.dead_letters import saving
from run_log.core import DeadLetterReason, ReceivedMessage, encode_event
from run_log.producer._segment import SpooledEvent
from run_log.producer._spool import Spool
from run_log.projector.archive import ArchiveWriter
from run_log.projector.rebuild import RebuildState, RejectsFile
from run_log.projector.rebuild.work import Reject
from run_log.stores import SQLiteRunLogService
from run_log.stores.files import open_private
from run_log.testing import a_run, an_event


def _archive(folder: Path) -> Callable[[], None]:
    writer = ArchiveWriter(folder / "an" / "archive")
    message = encode_event(an_event())
    writer.append([ReceivedMessage(data=message.data, message_id="m", ack_id="a")])
    return writer.close


def _rejects(folder: Path) -> Callable[[], None]:
    rejects = RejectsFile(folder / "rejects", goes_on=False)
    rejects.add(Reject("place", DeadLetterReason.UNDECODABLE, "why", b"body"))
    return lambda: None


def _state(folder: Path) -> Callable[[], None]:
    return RebuildState(folder / "state", source="s", into="i").close


def _dead_letters(folder: Path) -> Callable[[], None]:
    with saving(folder / "letters") as save:
        save([])
    return lambda: None


def _spool(folder: Path) -> Callable[[], None]:
    spool = Spool(folder / "a" / "spool")
    event = an_event()
    spool.append([SpooledEvent(event.key, event.version, encode_event(event))])
    return spool.close


def _sqlite(folder: Path) -> Callable[[], None]:
    log = SQLiteRunLogService(path=str(folder / "runs.db"))
    asyncio.run(log.save_run(a_run()))
    assert 3 == len(list(folder.iterdir()))  # with those that SQLite makes beside it
    return lambda: asyncio.run(log.close())


_WRITERS: Final = [_archive, _rejects, _state, _dead_letters, _spool, _sqlite]


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Have this process's umask be another one."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("write", _WRITERS)
def test_what_holds_payloads_is_its_owners_only(
    write: Callable[[Path], Callable[[], None]], umask: int, tmp_path: Path
) -> None:
    """Files that hold payloads are made with mode 600, and their folders with 700, whatever the umask."""
    close = write(tmp_path)

    made = sorted(tmp_path.rglob("*"))
    expected = [0o700 if path.is_dir() else 0o600 for path in made]
    assert expected == [stat.S_IMODE(path.stat().st_mode) for path in made], oct(umask)
    assert made
    close()


@pytest.mark.parametrize("write", [_rejects, _state, _dead_letters])
def test_what_is_there_keeps_its_mode(write: Callable[[Path], Callable[[], None]], tmp_path: Path) -> None:
    """A file that somebody has made for others to read stays so."""
    for name in ("rejects", "state", "letters"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o640)

    write(tmp_path)()

    assert {0o640} == {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}


def test_what_is_to_be_new_is_new(tmp_path: Path) -> None:
    """A file that is there is no new one, nor is a link that leads nowhere."""
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    with pytest.raises(FileExistsError):
        open_private(tmp_path / "link", os.O_WRONLY | os.O_EXCL)
    os.close(open_private(tmp_path / "link", os.O_WRONLY | os.O_CREAT))

    assert (tmp_path / "nowhere").exists()


_ROOT: Final = Path(__file__).parents[3]
_OTHERS: Final = {
    "console/run_log/console/views/output.py": 2,  # the null device
    "console/run_log/console/commands/events.py": 1,  # the schema
    "shared/run_log/stores/files.py": 1,
    "shared/run_log/testing/_emulators.py": 1,  # what an emulator prints, in a folder of its own
}


def test_no_other_file_is_made() -> None:
    """Everything else that makes a file makes it by `open_private`."""
    found = {
        str(path.relative_to(_ROOT)): count
        for folder in ("shared", "producer", "projector", "console")
        for path in sorted((_ROOT / folder).rglob("*.py"))
        if (count := sum(map(_makes_a_file, ast.walk(ast.parse(path.read_text())))))
    }

    assert _OTHERS == found


def _makes_a_file(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
    given = {argument.value for argument in arguments if isinstance(argument, ast.Constant)}
    if name == "os.open":
        return "O_CREAT" in ast.unparse(node) or "0o600" in ast.unparse(node)
    is_open = name == "open" or name.endswith(".open")
    is_writing = any(isinstance(mode, str) and len(mode) <= 3 and {*mode} & {*"wax"} for mode in given)
    is_private = any(keyword.arg == "opener" for keyword in node.keywords)
    return (is_open and is_writing and not is_private) or name.endswith((".write_text", ".write_bytes"))
