"""What Pub/Sub takes of a message. Its emulator takes anything, so these are checked here."""

from __future__ import annotations

from typing import Final

from run_log.core import Message
from run_log.core.wire import MAX_ATTRIBUTE_VALUE_BYTES, MAX_ATTRIBUTES

MAX_MESSAGE_BYTES: Final = 10_000_000
"""Of body, attributes and their frames (https://cloud.google.com/pubsub/quotas#resource_limits, as all)."""

ATTRIBUTE_FRAME_BYTES: Final = 8
"""Of an attribute, beside its name and its value."""

MAX_ATTRIBUTE_NAME_BYTES: Final = 256
"""UTF-8 bytes of an attribute's name."""

RESERVED_PREFIX: Final = "goog"
"""How no attribute's name may begin."""


def message_bytes(message: Message) -> int:
    """Return how many bytes of Pub/Sub's limit *message* takes.

    Args:
        message: To be published.

    Raises:
        UnicodeEncodeError: An attribute holds what UTF-8 cannot.
    """
    attributes = message.attributes
    texts = sum(len(name.encode()) + len(value.encode()) for name, value in attributes.items())
    return len(message.data) + texts + ATTRIBUTE_FRAME_BYTES * len(attributes)


def message_fault(message: Message) -> str | None:
    """Return why Pub/Sub would refuse *message*; None if it would not.

    Args:
        message: To be published.
    """
    attributes = message.attributes
    if not message.data and not attributes:
        return "it has neither a body nor an attribute"
    if len(attributes) > MAX_ATTRIBUTES:
        return f"it has {len(attributes)} attributes; the most are {MAX_ATTRIBUTES}"
    size = len(message.data) + ATTRIBUTE_FRAME_BYTES * len(attributes)
    for name, value in attributes.items():
        try:
            name_bytes, value_bytes = len(name.encode()), len(value.encode())
        except UnicodeEncodeError:
            return f"the attribute {name!r} holds what UTF-8 cannot, lone surrogates"
        size += name_bytes + value_bytes
        if not 0 < name_bytes <= MAX_ATTRIBUTE_NAME_BYTES:
            return f"an attribute's name has {name_bytes} bytes; it takes 1 to {MAX_ATTRIBUTE_NAME_BYTES}"
        if value_bytes > MAX_ATTRIBUTE_VALUE_BYTES:
            return f"the attribute {name!r} has {value_bytes} bytes; the most are {MAX_ATTRIBUTE_VALUE_BYTES}"
        if name.startswith(RESERVED_PREFIX):
            return f"the attribute {name!r} begins with {RESERVED_PREFIX!r}, which is Google's own"
    if size > MAX_MESSAGE_BYTES:
        return f"it has {size} bytes; the most are {MAX_MESSAGE_BYTES}"
    return None
