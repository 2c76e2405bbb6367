"""Where Pub/Sub is.

One place builds every client, so that none reaches production by mistake: of the vendor's generated clients
most ignore ``PUBSUB_EMULATOR_HOST``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
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
    MessageRefusedError,
    Settings,
    TransportError,
    TransportRefusedError,
    TransportUnavailableError,
)
from run_log.core.google_cloud import GoogleCloud

VENDOR_ERRORS: Final = (google_errors.GoogleAPIError, auth_errors.GoogleAuthError, grpc.RpcError)
"""What a call to Pub/Sub may raise."""

MAX_ANSWER_BYTES: Final = 32 * 2**20
"""Most bytes of an answer to a pull that are parsed, which takes three times as much memory. One message has
10 MB at most."""

TOO_LARGE: Final = "larger than max"
"""What gRPC says of an answer that has more; there is no code for it."""

_RECEIVED: Final = "grpc.max_receive_message_length"

_PASSING: Final = (
    google_errors.ServerError,
    google_errors.TooManyRequests,
    google_errors.Aborted,
    google_errors.Cancelled,
    google_errors.RetryError,
    auth_errors.TransportError,
    grpc.RpcError,
)


class PubSubConnection(GoogleCloud):
    """The project's Pub/Sub, or the emulator that ``PUBSUB_EMULATOR_HOST`` names.

    The clients it makes are the vendor's generated ones, whose annotations are too loose to use.

    Args:
        project: Google Cloud project; None takes the credentials' own.

    Raises:
        ConfigurationError: There is no project, or there are no credentials.
    """

    def __init__(self, project: str | None) -> None:
        super().__init__(
            "Pub/Sub",
            project,
            variable="PUBSUB_EMULATOR_HOST",
            find_credentials=cast("Any", google.auth).default,  # not annotated
            failures=(auth_errors.GoogleAuthError,),
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> PubSubConnection:
        """Return the connection that *settings* describe; see the constructor."""
        return cls(settings.project)

    def topic_path(self, topic: str) -> str:
        """Return the full name of *topic*."""
        return f"projects/{self.project}/topics/{topic}"

    def subscription_path(self, subscription: str) -> str:
        """Return the full name of *subscription*."""
        return f"projects/{self.project}/subscriptions/{subscription}"

    def publisher(self) -> Any:
        """Return a new `PublisherClient`, blocking: a call sends a batch, nothing runs behind it."""
        # gRPC's channels share connections, and how long to wait after one failed: a new client would inherit
        # the trouble of the one it replaces. This one's connection is its own.
        alone = ("grpc.use_local_subchannel_pool", 1)
        return self._client(grpc, PublisherClient, PublisherGrpcTransport, alone)

    def subscriber(self) -> Any:
        """Return a new `SubscriberClient`, blocking."""
        return self._client(grpc, SubscriberClient, SubscriberGrpcTransport)

    def async_publisher(self) -> Any:
        """Return a new `PublisherAsyncClient` for the running event loop."""
        return self._client(grpc.aio, PublisherAsyncClient, PublisherGrpcAsyncIOTransport)

    def async_subscriber(self) -> Any:
        """Return a new `SubscriberAsyncClient` for the running event loop; see `MAX_ANSWER_BYTES`."""
        most = (_RECEIVED, MAX_ANSWER_BYTES)
        return self._client(grpc.aio, SubscriberAsyncClient, SubscriberGrpcAsyncIOTransport, most)

    def _client(self, library: Any, client: Any, transport: Any, *own: tuple[str, int]) -> Any:
        """Return a new client whose channel has *own* options of gRPC's beside the vendor's."""
        if self.emulator:
            # The vendor's own channel to an emulator takes no more than 4 MB, less than one pull may bring.
            options = {"grpc.max_send_message_length": -1, _RECEIVED: -1, **dict(own)}
            channel = library.insecure_channel(self.emulator, options=[*options.items()])
            return client(transport=transport(channel=channel))

        # The client itself makes the transport, for it knows the endpoint and the certificates that the
        # environment asks for; only its channel is ours.
        def open_channel(*where: Any, options: Sequence[tuple[str, int]], **how: Any) -> Any:
            both = {**dict(options), **dict(own)}
            return transport.create_channel(*where, options=[*both.items()], **how)

        def opened(**arguments: Any) -> Any:
            return transport(**{**arguments, "channel": open_channel})

        return client(credentials=self.credentials, transport=opened)

    def reach(self, resource: str, seconds: float) -> None:
        """Return once Pub/Sub has answered that *resource* is there, or that we may not look at it. Blocks.

        *resource* is the full name of a topic or a subscription.

        Raises:
            TransportUnavailableError: Pub/Sub does not answer within *seconds*.
            TransportRefusedError: It is not there.
        """
        # Who may publish, or pull, may not always look: but denied, Pub/Sub has answered.
        with self.translated(resource), contextlib.suppress(google_errors.PermissionDenied):
            if "/subscriptions/" in resource:
                with self.subscriber() as client:
                    client.get_subscription(subscription=resource, retry=None, timeout=seconds)
            else:
                with self.publisher() as client:
                    client.get_topic(topic=resource, retry=None, timeout=seconds)

    @contextlib.contextmanager
    def translated(self, resource: str) -> Generator[None]:
        """Raise the vendor's errors in the block as ours; *resource* is what its calls are for."""
        try:
            yield
        except VENDOR_ERRORS as error:
            raise self.error(error, resource) from error

    def publish_error(self, error: Exception, topic: str) -> TransportError:
        """Return *error*, which a publish to *topic* raised, as `error` does; a message at fault as such."""
        if isinstance(error, google_errors.InvalidArgument):
            return MessageRefusedError(f"{self} does not take a message for {topic} ({error})")
        return self.error(error, topic)

    def error(self, error: Exception, resource: str) -> TransportError:
        """Return *error*, a vendor's, as one of ours that says what to do.

        *resource* is the full name of the topic or subscription that the call was for.
        """
        if isinstance(error, _PASSING):
            return TransportUnavailableError(f"{self} does not answer; is it up and reachable? ({error})")
        if isinstance(error, google_errors.NotFound):
            return TransportRefusedError(f"{resource} is not there; run `run-log provision` ({error})")
        if isinstance(error, google_errors.PermissionDenied | google_errors.Unauthenticated):
            return TransportRefusedError(f"{self} denies access to {resource}; grant its role ({error})")
        return TransportRefusedError(f"{self} refuses the call for {resource} ({error})")
