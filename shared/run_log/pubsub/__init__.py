"""What the producer and the projector share of Pub/Sub: one place that builds clients, and provisioning."""

from ._connection import VENDOR_ERRORS, PubSubConnection
from ._limits import message_fault
from ._provision import Provisioned, provision

__all__ = ["VENDOR_ERRORS", "Provisioned", "PubSubConnection", "message_fault", "provision"]
