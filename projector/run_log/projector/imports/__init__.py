"""Imports: run histories of other systems, as events of a run log."""

from .airflow import airflow_runs
from .celery import CELERY_STATUSES, celery_runs
from .documents import root_runs
from .errors import LeftOut
from .found import Found, Redact
from .mapping import FIELDS, FieldMapping, status_words, time_zone
from .tables import csv_runs, jsonl_runs
from .work import ImportReport, Reason, batches_of, import_runs

__all__ = [
    "CELERY_STATUSES",
    "FIELDS",
    "FieldMapping",
    "Found",
    "ImportReport",
    "LeftOut",
    "Reason",
    "Redact",
    "airflow_runs",
    "batches_of",
    "celery_runs",
    "csv_runs",
    "import_runs",
    "jsonl_runs",
    "root_runs",
    "status_words",
    "time_zone",
]
