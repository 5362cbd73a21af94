"""The real client at an API server that goes away in the middle of a sentence."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from espalier_kit.errors import Retryable
from espalier_kube.client import connect
from espalier_kube.cluster import POD


def kubeconfig(folder: Path, port: int) -> Path:
    path = folder / "config"
    path.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "c", "user": {"token": "secret"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }))
    return path


@pytest.mark.parametrize("status", ["200 OK", "429 Too Many Requests", "503 Service Unavailable"])
async def test_an_answer_that_breaks_off_can_be_tried_again(status: str, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        writer.write(head.encode() + b'{"kind":')
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        client = await connect(kubeconfig(tmp_path, server.sockets[0].getsockname()[1]))
        try:
            with pytest.raises(Retryable, match="broke off"):
                await client.get(POD, "p", "default")
            with pytest.raises(Retryable, match="broke off"):
                await client.logs("p", "default")
        finally:
            await client.close()
