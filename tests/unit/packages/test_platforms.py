"""What holds on a platform that has neither ``fork`` nor ``fcntl``, such as Windows."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

_TAKE_AWAY = """
import asyncio, os, signal, socket, subprocess, sys, tempfile
for module, names in {
    os: ("fork", "forkpty", "register_at_fork", "pread", "pwrite", "getuid", "geteuid", "fchmod"),
    signal: ("SIGKILL", "SIGHUP", "pthread_sigmask", "pthread_kill", "sigwait"),
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in ("fcntl", "pwd", "grp", "resource", "termios"):
    sys.modules[name] = None
"""


def _run(script: str, **environment: str) -> str:
    done = subprocess.run(  # noqa: S603 - this interpreter, a script of the test's own
        [sys.executable, "-c", _TAKE_AWAY + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_every_module_can_be_imported() -> None:
    """Without fork and fcntl every package can be imported, unless it needs a framework."""
    printed = _run(
        """
        import importlib, pkgutil
        import run_log
        frameworks = tuple(f"run_log.adapters.{name}" for name in ("airflow", "langgraph", "prefect"))
        count = 0
        for module in pkgutil.walk_packages(run_log.__path__, "run_log."):
            if ".beam." not in module.name and not module.name.endswith(("__main__", *frameworks)):
                importlib.import_module(module.name)
                count += 1
        print(count > 100)
        """
    )

    assert printed == "True\n"


def test_the_embedded_back_ends_work(tmp_path: Path) -> None:
    """Without fork and fcntl runs are recorded and found, in memory and in a file; the spool says why not."""
    script = """
        import logging
        from run_log.producer import default_emitter, record_run
        from run_log.stores import get_run_log_service

        logging.basicConfig(stream=sys.stdout, format="%(message)s %(error)s")

        async def main():
            async with record_run("w", run_id="r") as run:
                run.set_result({"a": 1})
            await default_emitter().flush(30)
            log = get_run_log_service()
            run = await log.get_run("w", "r")
            print(run.status.value, run.result, await log.get_stats("w"))
            await log.close()

        asyncio.run(main())
    """
    there = {"RUN_LOG_SQLITE_PATH": str(tmp_path / "runs"), "RUN_LOG_SPOOL_DIR": str(tmp_path / "spool")}

    for backend in ("memory", "sqlite"):
        told, found = sorted(_run(script, RUN_LOG_BACKEND=backend, **there).splitlines())

        assert "run_log_spool_failed" in told
        assert "fcntl" in told
        assert found == "success {'a': 1} {'total': 1, 'successful': 1}"
    assert not (tmp_path / "spool").exists()
