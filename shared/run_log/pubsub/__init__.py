"""What the producer and the projector share of Pub/Sub: one place that builds clients, and provisioning."""

from run_log.core.wire import MAX_ATTRIBUTES
from run_log.pubsub._connection import ATTRIBUTE_FRAME_BYTES, MAX_MESSAGE_BYTES, message_bytes, message_fault

from ._connection import MAX_ANSWER_BYTES, TOO_LARGE, VENDOR_ERRORS, PubSubConnection
from ._provision import (
    REPLAY_LEASE,
    Provisioned,
    add_subscription,
    begin_replay,
    end_replay,
    provision,
    topic_retention,
)

__all__ = [
    "ATTRIBUTE_FRAME_BYTES",
    "MAX_ANSWER_BYTES",
    "MAX_ATTRIBUTES",
    "MAX_MESSAGE_BYTES",
    "REPLAY_LEASE",
    "TOO_LARGE",
    "VENDOR_ERRORS",
    "Provisioned",
    "PubSubConnection",
    "add_subscription",
    "begin_replay",
    "end_replay",
    "message_bytes",
    "message_fault",
    "provision",
    "topic_retention",
]
