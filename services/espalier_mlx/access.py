"""Around every request: a request id, and the API key for all but the probes.

The key file is read again when it changes, so that a rotated Secret needs no restart.
"""

from __future__ import annotations

import hmac
import json
import re
import uuid
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from espalier_kit.errors import Misconfigured
from espalier_mlx.errors import wrong_key

OPEN_PATHS = frozenset({"/health", "/healthz", "/ready", "/readyz", "/metrics"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class ApiKey:
    """The key in a file. Raises `Misconfigured` at once if there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at_ns = 0
        self._key = b""
        self._refresh()

    def allows(self, authorization: str) -> bool:
        """Whether an `Authorization` header carries the key; takes the same time however much of it is right."""
        self._refresh()
        scheme, _, given = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._key)

    def _refresh(self) -> None:
        try:
            changed_ns = self._path.stat().st_mtime_ns
            if changed_ns == self._read_at_ns:
                return
            key = self._path.read_bytes().strip()
        except OSError as error:
            if self._key:
                return
            raise Misconfigured(f"ESPALIER_MLX_API_KEY_FILE: cannot read {self._path}: {error.strerror}") from error
        if not key and not self._key:
            raise Misconfigured(f"ESPALIER_MLX_API_KEY_FILE: {self._path} is empty")
        self._key, self._read_at_ns = key or self._key, changed_ns


class Entrance:
    """ASGI middleware: `x-request-id` on every answer (the client's own if it is well-formed), 401 without the key."""

    def __init__(self, app: ASGIApp, key: ApiKey | None) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        if self._key is None or scope["path"] in OPEN_PATHS or self._key.allows(headers.get("authorization", "")):
            await self._app(scope, receive, send_with_id)
        else:
            await _refuse(send_with_id)


async def _refuse(send: Send) -> None:
    error = wrong_key()
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(error.body()).encode()})
