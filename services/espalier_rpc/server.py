"""A gRPC server with TLS that renews itself, health, reflection, keepalive, and our errors as status codes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from espalier_kit.errors import Conflict, EspalierError, Forbidden, Misconfigured, NotFound, Permanent, Retryable

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest message either way: a report task may carry the outcomes of a thousand submissions."""

COMPRESS_FROM_BYTES = 64 * 1024
"""Answers of at least this size are compressed: below, it costs more than it saves."""

REASON_KEY = "espalier-reason"
"""Trailing metadata with the error's CamelCase reason."""

UNAUTHENTICATED = "Unauthenticated"
"""Reason of a `Forbidden` whose caller is not known at all."""

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
]

_STATUS: tuple[tuple[type[EspalierError], grpc.StatusCode], ...] = (
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Forbidden, grpc.StatusCode.PERMISSION_DENIED),
    (Conflict, grpc.StatusCode.ABORTED),
    (Retryable, grpc.StatusCode.UNAVAILABLE),
    (Permanent, grpc.StatusCode.INVALID_ARGUMENT),
)


def status_of(error: EspalierError) -> grpc.StatusCode:
    """The status code that tells a client what kind of error it was."""
    if error.reason == UNAUTHENTICATED:
        return grpc.StatusCode.UNAUTHENTICATED
    return next((code for kind, code in _STATUS if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


async def abort(context: aio.ServicerContext[Any, Any], error: EspalierError) -> NoReturn:
    """End the call with the error's code, sentence and reason."""
    await context.abort(status_of(error), str(error), trailing_metadata=((REASON_KEY, error.reason),))
    raise AssertionError("abort returned")


def bearer_token(context: aio.ServicerContext[Any, Any]) -> str:
    """The caller's token; empty when there is none."""
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            scheme, _, token = (value if isinstance(value, str) else value.decode()).partition(" ")
            if scheme.lower() == "bearer":
                return token
    return ""


def certificate_names(context: aio.ServicerContext[Any, Any]) -> frozenset[str]:
    """Common and alternative names of the client's certificate, where the server asks for one; else none."""
    told = context.auth_context()
    names = (*told.get("x509_common_name", ()), *told.get("x509_subject_alternative_name", ()))
    return frozenset(name.decode(errors="replace") for name in names)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A serving certificate and its key, PEM; with `client_ca`, callers must show a certificate that it signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @classmethod
    def in_folder(cls, folder: Path, client_ca: Path | None = None) -> TlsFiles:
        """Named as a `kubernetes.io/tls` Secret names them."""
        return cls(folder / "tls.crt", folder / "tls.key", client_ca)


def credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """A changed pair, or a changed authority of the clients, counts from the next handshake on."""
    loaded: dict[str, Any] = {}

    def read() -> grpc.ServerCertificateConfiguration | None:
        key, certificate = tls.key.read_bytes(), tls.certificate.read_bytes()
        authority = tls.client_ca.read_bytes() if tls.client_ca else None
        if loaded.get("files") == (key, certificate, authority):
            return None
        loaded["files"] = (key, certificate, authority)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        try:
            return read()
        except OSError as error:  # a renewal in progress: the pair before is still good
            log.warning("certificate unreadable", extra={"error": str(error)})
            return None

    first = read()
    assert first is not None
    # grpc takes None for "unchanged"; its type stubs do not know.
    return grpc.dynamic_ssl_server_credentials(
        first, fetch, require_client_authentication=tls.client_ca is not None,  # type: ignore[arg-type]
    )


class Server:
    """One gRPC server: add servicers to `grpc`, then `start` and `stop`. Without `tls` all is readable.

    Raises `Misconfigured` where the address (host:port) cannot be had.
    """

    def __init__(self, address: str, tls: TlsFiles | None, services: Sequence[str]) -> None:
        self.grpc = aio.server(options=_OPTIONS)
        self._health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), self.grpc)
        try:
            self.port = self._listen(address, tls)
        except RuntimeError as error:
            raise Misconfigured(f"cannot listen on {address}: is the port in use?", reason="AddressInUse") from error
        self._services = ("", *services)

    def _listen(self, address: str, tls: TlsFiles | None) -> int:
        if tls is None:
            return self.grpc.add_insecure_port(address)
        return self.grpc.add_secure_port(address, credentials(tls))

    async def start(self) -> None:
        """Listen; health says SERVING."""
        await self.grpc.start()
        await self.set_serving(True)

    async def set_serving(self, serving: bool) -> None:
        """What health says from now on; nothing after `stop`."""
        answer = health_pb2.HealthCheckResponse
        for name in self._services:
            await self._health.set(name, answer.SERVING if serving else answer.NOT_SERVING)

    def answer_health(self, other: aio.Server) -> None:
        """Let another server answer for the health of this one."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, other)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, give running ones `grace_s` seconds, then cut them."""
        await self._health.enter_graceful_shutdown()
        await self.grpc.stop(grace_s)


class HealthPort:
    """Another server's health in plain text, and nothing else: probes that speak no TLS ask here.

    Raises `Misconfigured` where the address (host:port) cannot be had.
    """

    def __init__(self, address: str, server: Server) -> None:
        self._grpc = aio.server(options=[("grpc.so_reuseport", 0)])
        server.answer_health(self._grpc)
        try:
            self.port = self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            raise Misconfigured(f"cannot listen on {address}: is the port in use?", reason="AddressInUse") from error

    async def start(self) -> None:
        """Listen."""
        await self._grpc.start()

    async def stop(self) -> None:
        """Listen no longer."""
        await self._grpc.stop(0)
