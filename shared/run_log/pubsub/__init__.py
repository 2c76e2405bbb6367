"""What the producer and the projector share of Pub/Sub: one place that builds clients, and provisioning."""

from ._provision import (
    REPLAY_LEASE,
    Provisioned,
    add_subscription,
    begin_replay,
    end_replay,
    provision,
    topic_retention,
)
from .connection import PubSubConnection

__all__ = [
    "REPLAY_LEASE",
    "Provisioned",
    "PubSubConnection",
    "add_subscription",
    "begin_replay",
    "end_replay",
    "provision",
    "topic_retention",
]
