"""The archive of events: files of event bodies, written for one machine, read from anywhere.

A line of JSON, or the data of an Avro record, is one message's body, exactly as it was published; a body says
all that is needed to read the event back.
"""

from .reading import ArchiveFile, ArchivePlace, find_files
from .records import ArchiveRecord, read_records
from .source import ArchiveSource
from .writer import ArchiveLimits, ArchiveReport, ArchiveWorker, ArchiveWriter

__all__ = [
    "ArchiveFile",
    "ArchiveLimits",
    "ArchivePlace",
    "ArchiveRecord",
    "ArchiveReport",
    "ArchiveSource",
    "ArchiveWorker",
    "ArchiveWriter",
    "find_files",
    "read_records",
]
