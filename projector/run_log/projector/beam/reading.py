"""The files of an archive, as workers read them: wherever Beam's file systems reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import BinaryIO

from run_log.core import DeadLetterReason, EventDecodeError, Message, RunEvent, decode_event, utc_now
from run_log.core.wire import check_stamp
from run_log.projector.archive import read_records
from run_log.projector.rebuild import reject_line


def read_events(
    name: str, file: BinaryIO, *, now: Callable[[], datetime] = utc_now
) -> Iterator[RunEvent | str]:
    """Yield the events of a file in order, and for what is none the line that says so among the rejects.

    Args:
        name: The file's.
        file: At its beginning, opened for reading bytes.
        now: The time, to tell how far ahead events are stamped.

    Raises:
        OSError: It cannot be read now.
        ConfigurationError: It is Avro, and what reads that is not installed.
    """
    for record in read_records(file):
        place = f"{name}:{record.number}"
        if record.fault is not None:
            yield reject_line(
                place, reason=DeadLetterReason.UNDECODABLE, error=record.fault, body=record.data
            )
            continue
        try:
            event = decode_event(Message(data=record.data, attributes=record.attributes))
            check_stamp(event, now())
        except EventDecodeError as error:
            reason = DeadLetterReason(error.reason)
            yield reject_line(
                place, reason=reason, error=str(error), body=record.data, attributes=record.attributes
            )
        else:
            yield event
