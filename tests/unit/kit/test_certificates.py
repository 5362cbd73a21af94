"""Our authority issues what TLS accepts, and nothing else passes."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from espalier_kit.certificates import KeyPair, expires_at, issue, make_authority, needs_renewal

NOW = datetime.now(UTC)


def _contexts(folder: Path, authority: KeyPair, server: KeyPair) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    (folder / "tls.crt").write_bytes(server.certificate)
    (folder / "tls.key").write_bytes(server.key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return serving, ssl.create_default_context(cadata=authority.certificate.decode())


async def _handshake(serving: ssl.SSLContext, trusting: ssl.SSLContext, name: str) -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=serving)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=name)
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("name", ["web.default.svc", "127.0.0.1"])
async def test_clients_verify_the_name_whatever_address_they_dial(tmp_path: Path, name: str) -> None:
    authority = make_authority("test", NOW)
    server = issue(authority, "web", NOW, hosts=["web.default.svc", "127.0.0.1"], is_server=True)
    await _handshake(*_contexts(tmp_path, authority, server), name)


async def test_another_name_is_refused(tmp_path: Path) -> None:
    authority = make_authority("test", NOW)
    server = issue(authority, "web", NOW, hosts=["web.default.svc"], is_server=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        await _handshake(*_contexts(tmp_path, authority, server), "other.default.svc")


async def test_another_authority_is_refused(tmp_path: Path) -> None:
    server = issue(make_authority("one", NOW), "web", NOW, hosts=["web"], is_server=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        await _handshake(*_contexts(tmp_path, make_authority("two", NOW), server), "web")


def test_a_certificate_is_renewed_in_the_last_fifth_of_its_life() -> None:
    leaf = issue(make_authority("test", NOW), "web", NOW, hosts=["web"], is_server=True).certificate
    end = expires_at(leaf)
    assert not needs_renewal(leaf, end - timedelta(days=80))
    assert needs_renewal(leaf, end - timedelta(days=70))


def test_a_key_pair_never_shows_its_key() -> None:
    assert "PRIVATE" not in repr(make_authority("test", NOW))
