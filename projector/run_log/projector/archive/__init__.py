"""The archive of events: files of event bodies, written on one machine, read from anywhere.

A line of JSON, or the data of an Avro record, is the body of one message as it was published. A body alone is
enough to read the event back.
"""

from .reading import ArchiveFile, find_files
from .records import ArchiveRecord, read_records
from .writer import ArchiveReport, ArchiveWorker, ArchiveWriter

__all__ = [
    "ArchiveFile",
    "ArchiveRecord",
    "ArchiveReport",
    "ArchiveWorker",
    "ArchiveWriter",
    "find_files",
    "read_records",
]
