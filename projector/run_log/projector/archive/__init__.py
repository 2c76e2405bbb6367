"""The archive of events: files of event bodies, written on one machine, read from anywhere.

A line of JSON, or the data of an Avro record, is the body of one message as it was published. A body alone is
enough to read the event back.
"""

from .reading import ArchiveFile, ArchivePosition, find_files
from .records import ArchiveRecord, read_records
from .source import ArchiveSource
from .writer import ArchiveLimits, ArchiveReport, ArchiveWorker, ArchiveWriter

__all__ = [
    "ArchiveFile",
    "ArchiveLimits",
    "ArchivePosition",
    "ArchiveRecord",
    "ArchiveReport",
    "ArchiveSource",
    "ArchiveWorker",
    "ArchiveWriter",
    "find_files",
    "read_records",
]
