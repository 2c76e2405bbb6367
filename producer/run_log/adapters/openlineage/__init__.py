"""Records the runs of whatever sends events of OpenLineage over HTTP. Needs the extra ``openlineage``."""

from .app import create_app

__all__ = ["create_app"]
