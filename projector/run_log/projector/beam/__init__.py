"""A rebuild on many machines: Apache Beam, for example on Dataflow, folds an archive into a root collection.

``python -m run_log.projector.beam --help`` tells how to run it. `build` adds it to a pipeline of your own.
Needs the extra ``beam``.
"""

from typing import TYPE_CHECKING, Any

from run_log.core.install import how_to_install

from .steps import BeamRebuild

if TYPE_CHECKING:
    from ._pipeline import build

__all__ = ["BeamRebuild", "build"]


def __getattr__(name: str) -> Any:
    """Import Beam only with `build`: the rest works, and is tested, without it."""
    if name != "build":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from ._pipeline import build  # noqa: PLC0415 - see above
    except ImportError as error:
        raise ImportError(f"build: {error}; {how_to_install('beam')}") from error
    return build
