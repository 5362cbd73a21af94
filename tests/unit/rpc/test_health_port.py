"""gRPC health in plain text beside a server that speaks TLS only: what a kubelet's probe sees."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from espalier_kit.certificates import issue, make_authority
from espalier_kit.errors import Misconfigured
from espalier_rpc.server import HealthPort, Server, TlsFiles

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def asked(port: int) -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        return int(answer.status)


@pytest.fixture
def tls(tmp_path: Path) -> TlsFiles:


    now = datetime.now(UTC)
    pair = issue(make_authority("test", now), "server", now, hosts=["127.0.0.1"], is_server=True)
    (tmp_path / "tls.crt").write_bytes(pair.certificate)
    (tmp_path / "tls.key").write_bytes(pair.key)
    return TlsFiles.in_folder(tmp_path)


async def test_it_says_what_the_server_behind_tls_says(tls: TlsFiles) -> None:
    server = Server("127.0.0.1:0", tls, ["espalier.v1.Coordinator"])
    probe = HealthPort("127.0.0.1:0", server)
    await server.start()
    await probe.start()
    try:
        assert await asked(probe.port) == SERVING
        await server.set_serving(False)
        assert await asked(probe.port) == NOT_SERVING
        await server.set_serving(True)
        await server.stop(0)
        await server.set_serving(True)
        assert await asked(probe.port) == NOT_SERVING, "who leaves is not called back"
    finally:
        await probe.stop()
        await server.stop(0)


async def test_the_tls_port_itself_answers_no_plain_probe(tls: TlsFiles) -> None:
    server = Server("127.0.0.1:0", tls, [])
    await server.start()
    try:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asked(server.port)
        assert refused.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    finally:
        await server.stop(0)


async def test_a_port_in_use_is_one_sentence(tls: TlsFiles) -> None:
    server = Server("127.0.0.1:0", tls, [])
    try:
        with pytest.raises(Misconfigured, match="is the port in use"):
            HealthPort(f"127.0.0.1:{server.port}", server)
    finally:
        await server.stop(0)
