"""The command line ``run-log``. Commands import what they need only when they run, so ``--help`` is quick."""

from .app import main

__all__ = ["main"]
