"""Whether what is stored is right: counts against a recount of the runs, one projection against another."""

from ._compare import Comparison, CountDifference, RunDifference, Side, compare
from ._figures import CountName
from ._port import Audit, CountsRepair, RunDocument, StoredCounts, WorkflowSnapshot

__all__ = [
    "Audit",
    "Comparison",
    "CountDifference",
    "CountName",
    "CountsRepair",
    "RunDifference",
    "RunDocument",
    "Side",
    "StoredCounts",
    "WorkflowSnapshot",
    "compare",
]
