"""Verifies the token that Pub/Sub sends with each push."""

from __future__ import annotations

from run_log.core.errors import PushRefusedError
from run_log.http.errors import TokenRefusedError
from run_log.http.tokens import Certificates, account_claims


class TokenVerifier:
    """Accepts tokens that Google signed for one service account and one audience.

    Both are as in the subscription's push configuration; the service account is an e-mail address.
    """

    def __init__(self, *, audience: str, service_account: str, certificates: Certificates) -> None:
        self._audience = audience
        self._service_account = service_account
        self._certificates = certificates

    async def __call__(self, authorization: str | None) -> None:
        """Check the header ``Authorization`` of a request.

        Raises:
            PushRefusedError: 401 without a valid token, 403 with the token of another account, 503 if that
                cannot be checked now.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise PushRefusedError(
                "no token; set an OIDC service account in the subscription's push configuration", status=401
            )
        try:
            claims = await account_claims(
                token, self._certificates, audience=self._audience, settings="RUN_LOG_PUSH"
            )
        except TokenRefusedError as error:
            raise PushRefusedError(str(error), status=error.status) from error
        if claims.get("email") != self._service_account:
            raise PushRefusedError("the token is not of the account RUN_LOG_PUSH_SERVICE_ACCOUNT", status=403)
