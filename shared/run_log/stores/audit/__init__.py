"""Whether what is stored is right: counts against a recount of the runs, one projection against another."""

from ._compare import Comparison, CountDifference, RunDifference, Side, compare
from ._figures import CountName
from ._verify import CountFinding, RunFinding, Verification, VerifyProgress, verify
from .port import Audit, CountsRepair, RunDocument, StoredCounts, WorkflowSnapshot

__all__ = [
    "Audit",
    "Comparison",
    "CountDifference",
    "CountFinding",
    "CountName",
    "CountsRepair",
    "RunDifference",
    "RunDocument",
    "RunFinding",
    "Side",
    "StoredCounts",
    "Verification",
    "VerifyProgress",
    "WorkflowSnapshot",
    "compare",
    "verify",
]
