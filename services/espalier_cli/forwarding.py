"""From outside a cluster its Services have no address: the coordinator is reached through the Kubernetes API then.

`kubectl port-forward` does it, with the cluster's own kubectl for a local cluster and the one on PATH for any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from espalier_kit.errors import EspalierError, Misconfigured, Retryable
from espalier_local import assets
from espalier_local.api import clean_environment
from espalier_local.places import places_from
from espalier_local.progress import Silent

TIMEOUT_S = 20.0
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ->")
_DEFAULT_PORT = 443


@asynccontextmanager
async def reachable(url: str, kubeconfig: Path) -> AsyncIterator[str]:
    """The URL itself where its host has an address here, else one on this machine that leads there as long as this
    context lasts. Raises `Misconfigured` without kubectl and `Retryable` when it cannot connect, with its words."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if await _has_address(host):
        yield url
        return
    service, _, rest = host.partition(".")
    namespace = rest.partition(".")[0]
    async with _forwarded(_kubectl(kubeconfig), kubeconfig, service, namespace, parts.port or _DEFAULT_PORT) as port:
        yield f"{parts.scheme}://127.0.0.1:{port}{parts.path}"


async def _has_address(host: str) -> bool:
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None)
    except socket.gaierror:
        return False
    return True


def _kubectl(kubeconfig: Path) -> str:
    with contextlib.suppress(EspalierError):
        places = places_from(os.environ)
        if kubeconfig.resolve().is_relative_to(places.clusters.resolve()):
            return str(assets.ensure(places, Silent())["kubectl"])
    found = shutil.which("kubectl")
    if found is None:
        raise Misconfigured(
            "the coordinator has no address outside its cluster, and kubectl, which would forward a port, is not on "
            "PATH: install kubectl, or run this where the cluster's names are known"
        )
    return found


@asynccontextmanager
async def _forwarded(kubectl: str, kubeconfig: Path, service: str, namespace: str, port: int) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        kubectl, f"--kubeconfig={kubeconfig}", f"--namespace={namespace}", "port-forward", "--address=127.0.0.1",
        f"service/{service}", f":{port}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
        env=clean_environment(os.environ),
    )  # fmt: skip
    try:
        yield await _local_port(process, f"{namespace}/{service}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def _local_port(process: asyncio.subprocess.Process, what: str) -> int:
    assert process.stdout is not None
    assert process.stderr is not None
    line = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TIMEOUT_S):
            line = await process.stdout.readline()
    if found := _FORWARDING.match(line.decode()):
        return int(found[1])
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    words = " ".join((await process.stderr.read()).decode().split())[-300:]
    raise Retryable(f"no way to {what} through the Kubernetes API: {words or 'kubectl did not answer'}", reason="NoWay")
