"""HTTP as it is served: TLS that renews itself, client certificates that a caller may show, a port that is in use."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from asyncio import Transport
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from espalier_kit.errors import Misconfigured
from espalier_rpc.server import TlsFiles

log = logging.getLogger(__name__)

RELOAD_S = 30.0
"""How soon a renewed certificate is served."""
_PEER = "peer_names"


class _Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is untyped here
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the program handles its own signals


class _Protocol(H11Protocol):  # type: ignore[misc]  # uvicorn is untyped here
    """Tells requests the names in the certificate that the client showed."""

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        self.app_state: dict[str, Any] = {**self.app_state, _PEER: _names(transport.get_extra_info("peercert") or {})}


def peer_names(request: Request) -> frozenset[str]:
    """Common and alternative names of the client's certificate; none without one."""
    return getattr(request.state, _PEER, frozenset())


def _names(certificate: Mapping[str, Any]) -> frozenset[str]:
    common = (value for part in certificate.get("subject", ()) for name, value in part if name == "commonName")
    return frozenset([*common, *(value for _, value in certificate.get("subjectAltName", ()))])


@contextlib.asynccontextmanager
async def serving(web: FastAPI, *, host: str, port: int, tls: TlsFiles | None) -> AsyncIterator[int]:
    """Serve while the context is open; yields the port. Raises `Misconfigured` where the address cannot be had.

    A client certificate is asked for where `tls` has an authority for them, and not demanded: probes have none.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Misconfigured(f"cannot listen on {host}:{port}: {error.strerror}", reason="AddressInUse") from error
    config = uvicorn.Config(
        web, http=_Protocol, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1,
        **(_tls_options(tls) if tls else {}),
    )
    config.load()
    server = _Server(config)
    parts = [asyncio.create_task(server.serve(sockets=[listener]), name="web")]
    if tls:
        parts.append(asyncio.create_task(_reload(config.ssl, tls), name="web certificate"))
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        for part in parts[1:]:
            part.cancel()
        await asyncio.wait(parts)


def _tls_options(tls: TlsFiles) -> dict[str, Any]:
    options: dict[str, Any] = {"ssl_certfile": str(tls.certificate), "ssl_keyfile": str(tls.key)}
    if tls.client_ca:
        options |= {"ssl_ca_certs": str(tls.client_ca), "ssl_cert_reqs": ssl.CERT_OPTIONAL}
    return options


async def _reload(context: ssl.SSLContext, tls: TlsFiles) -> None:
    """A renewed pair counts from the next handshake on."""
    served = tls.certificate.read_bytes()
    while True:
        await asyncio.sleep(RELOAD_S)
        try:
            found = await asyncio.to_thread(_read, tls.certificate)
            if found != served:
                context.load_cert_chain(tls.certificate, tls.key)
                served = found
        except (OSError, ssl.SSLError) as error:  # a renewal in progress: the pair before is still good
            log.warning("certificate unreadable", extra={"error": str(error)})


def _read(path: Path) -> bytes:
    return path.read_bytes()
