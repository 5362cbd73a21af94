"""The OpenAI error object as an exception, and the few ways this server refuses."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """One refused or failed request: HTTP status plus the four fields of OpenAI's error object."""

    def __init__(
        self, status: int, message: str, *, kind: str, code: str | None = None, param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request itself is wrong; the sentence says what to change."""
    return ApiError(400, message, kind="invalid_request_error", code=code, param=param)


def unknown_model(name: str, known: tuple[str, ...]) -> ApiError:
    """404 as OpenAI's; lists what there is."""
    message = f"The model {name[:100]!r} does not exist here; this server has: {', '.join(known)}"
    return ApiError(404, message, kind="invalid_request_error", code="model_not_found", param="model")


def wrong_key() -> ApiError:
    """401."""
    return ApiError(
        401, "Incorrect API key: send this server's key as 'Authorization: Bearer KEY'",
        kind="invalid_request_error", code="invalid_api_key",
    )


def too_busy(retry_after_s: int) -> ApiError:
    """429: every slot and every place in the queue is taken."""
    message = f"The queue is full; try again in {retry_after_s} s"
    return ApiError(429, message, kind="rate_limit_error", code="rate_limit_exceeded", retry_after_s=retry_after_s)


def unavailable(message: str, *, code: str, retry_after_s: int = 5) -> ApiError:
    """503: loading, draining or broken; another server, or this one later, may answer."""
    return ApiError(503, message, kind="server_error", code=code, retry_after_s=retry_after_s)


def failed(message: str, *, code: str = "engine_error") -> ApiError:
    """500: our fault."""
    return ApiError(500, message, kind="server_error", code=code)
