"""How one may come in: TLS or loopback, and who decides who a caller is. Read off the settings, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from espalier_coordinator.access import Access, EitherAccess, ReviewedAccess
from espalier_coordinator.callers import NamedAccess
from espalier_coordinator.settings import CoordinatorSettings
from espalier_kit.addresses import is_loopback
from espalier_kit.clock import Clock
from espalier_kit.errors import Misconfigured
from espalier_kube import client
from espalier_rpc.server import TlsFiles


def tls_of(settings: CoordinatorSettings) -> TlsFiles | None:
    """The files to serve with; None: everything is readable on the way. Raises `Misconfigured` with a sentence."""
    if settings.tls_cert and settings.tls_key:
        return TlsFiles(settings.tls_cert, settings.tls_key, settings.client_ca)
    if settings.tls_cert or settings.tls_key:
        raise _wrong("give both ESPALIER_COORDINATOR_TLS_CERT and ESPALIER_COORDINATOR_TLS_KEY, or neither")
    if settings.tls_dir:
        return TlsFiles.in_folder(settings.tls_dir, settings.client_ca)
    if settings.client_ca:
        raise _wrong("ESPALIER_COORDINATOR_CLIENT_CA needs TLS: set ESPALIER_COORDINATOR_TLS_DIR as well")
    if settings.scaling_port:
        raise _wrong("ESPALIER_COORDINATOR_SCALING_PORT needs TLS: set ESPALIER_COORDINATOR_TLS_DIR as well")
    if not (settings.insecure or is_loopback(settings.host)):
        raise _wrong(
            f"without TLS only this machine may connect, and HOST is {settings.host}: set ESPALIER_COORDINATOR_TLS_DIR "
            "(a folder with tls.crt and tls.key), or ESPALIER_COORDINATOR_HOST=127.0.0.1, or "
            "ESPALIER_COORDINATOR_INSECURE=yes where the network itself is private"
        )
    return None


@asynccontextmanager
async def access_of(settings: CoordinatorSettings, clock: Clock) -> AsyncIterator[Access]:
    """Named callers where a file has some, and the API server's word where that is asked for."""
    named = NamedAccess(settings.callers, clock) if settings.callers else None
    does_review = named is None if settings.token_review is None else settings.token_review
    if not does_review:
        if named is None:
            raise _wrong("nobody could come in: set ESPALIER_COORDINATOR_CALLERS (a file of named callers), or "
                         "ESPALIER_COORDINATOR_TOKEN_REVIEW=yes inside a cluster")
        yield named
        return
    cluster = await client.connect()
    try:
        reviewed = ReviewedAccess(cluster, settings.admins, clock, settings.pools)
        yield EitherAccess(named, reviewed) if named else reviewed
    finally:
        await cluster.close()


def _wrong(message: str) -> Misconfigured:
    return Misconfigured(message, reason="Misconfigured")
