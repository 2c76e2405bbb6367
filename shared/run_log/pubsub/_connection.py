"""Where Pub/Sub is, and what it takes of a message.

One place builds every client, so that none reaches production by mistake.
Google's generated clients ignore ``PUBSUB_EMULATOR_HOST``; only its hand-written ones read it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, cast

import google.auth
import grpc
import grpc.aio
from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from google.pubsub_v1 import PublisherAsyncClient, PublisherClient, SubscriberAsyncClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import (
    PublisherGrpcAsyncIOTransport,
    PublisherGrpcTransport,
)
from google.pubsub_v1.services.subscriber.transports import (
    SubscriberGrpcAsyncIOTransport,
    SubscriberGrpcTransport,
)

from run_log.core import (
    ConfigurationError,
    Message,
    MessageRefusedError,
    Settings,
    TransportError,
    TransportRefusedError,
    TransportUnavailableError,
)
from run_log.core.wire import MAX_ATTRIBUTE_VALUE_BYTES, MAX_ATTRIBUTES

MAX_MESSAGE_BYTES: Final = 10_000_000
"""Of body, attributes and their frames (https://cloud.google.com/pubsub/quotas#resource_limits, as all)."""

ATTRIBUTE_FRAME_BYTES: Final = 8
"""Of an attribute, beside its name and its value."""

MAX_ATTRIBUTE_NAME_BYTES: Final = 256
"""UTF-8 bytes of an attribute's name."""

RESERVED_PREFIX: Final = "goog"
"""How no attribute's name may begin."""

VENDOR_ERRORS: Final = (google_errors.GoogleAPIError, auth_errors.GoogleAuthError, grpc.RpcError)
"""What a call to Pub/Sub may raise."""

_UNBOUNDED: Final = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
"""For the channels made here, as the vendor's own have it: a pull of many large messages exceeds 4 MB."""

MAX_ANSWER_BYTES: Final = 32 * 2**20
"""Most bytes of an answer to a pull that are parsed, which takes three times as much memory. One message has
10 MB at most."""

TOO_LARGE: Final = "larger than max"
"""What gRPC says of an answer that has more; there is no code for it."""

_RECEIVED: Final = "grpc.max_receive_message_length"
_BOUNDED: Final = (("grpc.max_send_message_length", -1), (_RECEIVED, MAX_ANSWER_BYTES))

_NOT_SHARED: Final = ("grpc.use_local_subchannel_pool", 1)

_PASSING: Final = (
    google_errors.ServerError,
    google_errors.TooManyRequests,
    google_errors.Aborted,
    google_errors.Cancelled,
    google_errors.RetryError,
    auth_errors.TransportError,
    grpc.RpcError,
)


class PubSubConnection:
    """The project's Pub/Sub, or the emulator that ``PUBSUB_EMULATOR_HOST`` names.

    The clients it makes are the vendor's generated ones, whose annotations are too loose to use.

    Args:
        project: Google Cloud project; None takes the credentials' own.

    Raises:
        ConfigurationError: There is no project, or there are no credentials.
    """

    def __init__(self, project: str | None) -> None:
        self._emulator = os.environ.get("PUBSUB_EMULATOR_HOST") or None
        self._credentials: Any = None
        if self._emulator is None:
            self._credentials, own = _default_credentials()
            project = project or own
        if not project:
            raise ConfigurationError("no Google Cloud project; set GOOGLE_CLOUD_PROJECT")
        self.project: str = project

    @classmethod
    def from_settings(cls, settings: Settings) -> PubSubConnection:
        """Return the connection that *settings* describe; see the constructor."""
        return cls(settings.project)

    def __str__(self) -> str:
        """Return where this leads, for error messages."""
        return f"Pub/Sub ({self.where}, project {self.project!r})"

    @property
    def where(self) -> str:
        """``emulator at HOST:PORT``, or ``Google Cloud``."""
        return f"emulator at {self._emulator}" if self._emulator else "Google Cloud"

    @property
    def is_emulator(self) -> bool:
        """Whether this leads to an emulator."""
        return self._emulator is not None

    @property
    def credentials(self) -> Any:
        """What calls are made with; None on an emulator."""
        return self._credentials

    def topic_path(self, topic: str) -> str:
        """Return the full name of *topic*."""
        return f"projects/{self.project}/topics/{topic}"

    def subscription_path(self, subscription: str) -> str:
        """Return the full name of *subscription*."""
        return f"projects/{self.project}/subscriptions/{subscription}"

    def publisher(self) -> Any:
        """Return a new `PublisherClient`, blocking: a call sends a batch, nothing runs behind it.

        Its connection is its own. gRPC's channels share connections otherwise, and how long to wait after
        one failed: a new client would inherit the trouble of the one it replaces.
        """
        if self._emulator:
            channel = grpc.insecure_channel(self._emulator, options=(*_UNBOUNDED, _NOT_SHARED))
            return PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        return PublisherClient(credentials=self._credentials, transport=_unshared_transport)

    def subscriber(self) -> Any:
        """Return a new `SubscriberClient`, blocking."""
        if self._emulator:
            channel = grpc.insecure_channel(self._emulator, options=_UNBOUNDED)
            return SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        return SubscriberClient(credentials=self._credentials)

    def async_publisher(self) -> Any:
        """Return a new `PublisherAsyncClient` for the running event loop."""
        if self._emulator:
            channel = grpc.aio.insecure_channel(self._emulator, options=_UNBOUNDED)
            return PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=channel))
        return PublisherAsyncClient(credentials=self._credentials)

    def async_subscriber(self) -> Any:
        """Return a new `SubscriberAsyncClient` for the running event loop; see `MAX_ANSWER_BYTES`."""
        if self._emulator:
            channel = grpc.aio.insecure_channel(self._emulator, options=_BOUNDED)
            return SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=channel))
        return SubscriberAsyncClient(credentials=self._credentials, transport=_bounded_transport)

    def reach(self, resource: str, seconds: float) -> None:
        """Return once Pub/Sub has answered that *resource* is there, or that we may not look at it. Blocks.

        Args:
            resource: The full name of a topic or a subscription.
            seconds: How long that may take.

        Raises:
            TransportUnavailableError: Pub/Sub does not answer.
            TransportRefusedError: It is not there.
        """
        try:
            if "/subscriptions/" in resource:
                with self.subscriber() as client:
                    client.get_subscription(subscription=resource, retry=None, timeout=seconds)
            else:
                with self.publisher() as client:
                    client.get_topic(topic=resource, retry=None, timeout=seconds)
        except google_errors.PermissionDenied:
            return  # it answers; who may publish, or pull, may not look
        except VENDOR_ERRORS as error:
            raise self.error(error, resource) from error

    def publish_error(self, error: Exception, topic: str) -> TransportError:
        """Return *error*, which a publish raised, as `error` does; a message at fault as such.

        Args:
            error: What the call raised.
            topic: The full name of the topic.
        """
        if isinstance(error, google_errors.InvalidArgument):
            return MessageRefusedError(f"{self} does not take a message for {topic} ({error})")
        return self.error(error, topic)

    def error(self, error: Exception, resource: str) -> TransportError:
        """Return *error*, a vendor's, as one of ours that says what to do.

        Args:
            error: What a call raised.
            resource: The full name of the topic or subscription the call was for.
        """
        if isinstance(error, _PASSING):
            return TransportUnavailableError(f"{self} does not answer; is it up and reachable? ({error})")
        if isinstance(error, google_errors.NotFound):
            return TransportRefusedError(f"{resource} is not there; run `run-log provision` ({error})")
        if isinstance(error, google_errors.PermissionDenied | google_errors.Unauthenticated):
            return TransportRefusedError(f"{self} denies access to {resource}; grant its role ({error})")
        return TransportRefusedError(f"{self} refuses the call for {resource} ({error})")


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


def _unshared_transport(**arguments: Any) -> PublisherGrpcTransport:
    vendor: Any = PublisherGrpcTransport  # not annotated for arguments that are handed on

    def channel(*where: Any, options: Sequence[tuple[str, Any]] = (), **how: Any) -> Any:
        return vendor.create_channel(*where, options=[*options, _NOT_SHARED], **how)

    return cast("PublisherGrpcTransport", vendor(**{**arguments, "channel": channel}))


def _bounded_transport(**arguments: Any) -> SubscriberGrpcAsyncIOTransport:
    vendor: Any = SubscriberGrpcAsyncIOTransport

    def channel(*where: Any, options: Sequence[tuple[str, Any]] = (), **how: Any) -> Any:
        own = [(name, value) for name, value in options if name != _RECEIVED]
        return vendor.create_channel(*where, options=[*own, (_RECEIVED, MAX_ANSWER_BYTES)], **how)

    return cast("SubscriberGrpcAsyncIOTransport", vendor(**{**arguments, "channel": channel}))


def _default_credentials() -> tuple[Any, str | None]:
    try:
        found = cast("Any", google.auth).default()  # not annotated
    except (auth_errors.GoogleAuthError, OSError) as error:
        raise ConfigurationError(
            "no Google Cloud credentials; run `gcloud auth application-default login`, run as a service "
            f"account, or set PUBSUB_EMULATOR_HOST to use the emulator ({error})"
        ) from error
    return cast("tuple[Any, str | None]", found)
