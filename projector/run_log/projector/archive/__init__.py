"""The archive of events: files of event bodies, written for one machine, read from anywhere.

A line of JSON, or the data of an Avro record, is one message's body, exactly as it was published; a body says
all that is needed to read the event back.
"""

from ._files import ArchiveFile, find_files
from ._reader import ArchivePlace
from ._records import ArchiveRecord, read_records
from ._source import ArchiveSource
from ._writer import ArchiveLimits, ArchiveReport, ArchiveWorker, ArchiveWriter

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
