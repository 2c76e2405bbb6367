"""What the producer and the projector share of Pub/Sub: one place that builds clients, and provisioning."""

from ._connection import VENDOR_ERRORS, PubSubConnection
from ._limits import MAX_ATTRIBUTES, message_fault
from ._provision import Provisioned, provision

__all__ = ["MAX_ATTRIBUTES", "VENDOR_ERRORS", "Provisioned", "PubSubConnection", "message_fault", "provision"]
