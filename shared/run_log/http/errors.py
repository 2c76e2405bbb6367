"""What is wrong with a token. Each room that verifies one makes an error of its own of it."""

from __future__ import annotations


class TokenRefusedError(Exception):
    """A token is not valid here. The message has nothing of it; `status` is that of an HTTP answer."""

    def __init__(self, message: str, *, status: int = 401) -> None:
        super().__init__(message)
        self.status = status
