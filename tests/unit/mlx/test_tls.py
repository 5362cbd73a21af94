"""A renewed certificate reaches new connections."""

import asyncio
import ssl
from datetime import UTC, datetime

from espalier_kit.certificates import issue, make_authority
from espalier_mlx.tls import options, reload

NOW = datetime.now(UTC)


def write_pair(directory, authority):
    pair = issue(authority, "server", NOW, hosts=["localhost"], is_server=True)
    (directory / "tls.crt").write_bytes(pair.certificate)
    (directory / "tls.key").write_bytes(pair.key)


async def served(port, trusted):
    """The certificate of a new connection, DER."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusted, server_hostname="localhost")
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return certificate


async def test_the_context_takes_the_new_files(tmp_path):
    authority = make_authority("test", NOW)
    write_pair(tmp_path, authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*options(tmp_path).values())
    trusted = ssl.create_default_context(cadata=authority.certificate.decode())
    ended = asyncio.Event()

    async def greet(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    task = asyncio.create_task(reload(context, tmp_path, ended, every_s=0.01))
    async with server, asyncio.timeout(10):
        before = await served(port, trusted)
        write_pair(tmp_path, authority)
        while await served(port, trusted) == before:
            pass
        ended.set()
        await task


async def test_without_tls_there_is_nothing_to_do():
    ended = asyncio.Event()
    ended.set()
    assert options(None) == {}
    await reload(None, None, ended)
