"""What a cluster's owner asks of its API server while it starts: is it ready, apply these, are the nodes ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from espalier_kit.errors import Gone, Retryable
from espalier_kube.client import connect
from espalier_kube.cluster import NODE, Kind, Object

_PROXIES_AND_TRUST = (
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "KUBECONFIG",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy",
)  # fmt: skip
"""Variables that would make a program trust, ask or touch something other than this cluster."""


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for programs of a local cluster, all of whose addresses are loopback."""
    return {key: value for key, value in environ.items() if key not in _PROXIES_AND_TRUST}


def apply(kubeconfig: Path, objects: Iterable[Object]) -> None:
    """Server-side apply of them all, in order."""

    async def run() -> None:
        client = await connect(kubeconfig)
        try:
            for obj in objects:
                await client.apply(obj)
        finally:
            await client.close()

    asyncio.run(run())


def ready_nodes(nodes: Iterable[Object]) -> frozenset[str]:
    """The names of those whose Ready condition is True."""
    return frozenset(
        node["metadata"]["name"]
        for node in nodes
        if any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", ()))
    )


def list_all(kubeconfig: Path, kind: Kind, namespace: str | None = None) -> tuple[Object, ...]:
    """All objects of a kind."""

    async def run() -> tuple[Object, ...]:
        client = await connect(kubeconfig)
        try:
            return (await client.list(kind, namespace)).items
        finally:
            await client.close()

    return asyncio.run(run())


def delete_all(kubeconfig: Path, kind: Kind, namespace: str, *, labels: str) -> None:
    """Delete what a label selector finds."""

    async def run() -> None:
        client = await connect(kubeconfig)
        try:
            for item in (await client.list(kind, namespace, labels=labels)).items:
                await client.delete(kind, item["metadata"]["name"], namespace)
        finally:
            await client.close()

    asyncio.run(run())


def wait_for_nodes(
    kubeconfig: Path, names: Collection[str], *, timeout_s: float, on_change: Callable[[int], None]
) -> None:
    """Until all are Ready; raises `Retryable` naming those that are not."""
    ready: set[str] = set()

    async def run() -> None:
        client = await connect(kubeconfig)
        try:
            while True:
                listing = await client.list(NODE)
                ready.update(ready_nodes(listing.items))
                on_change(len(ready & set(names)))
                if ready >= set(names):
                    return
                try:
                    async for event in client.watch(NODE, resource_version=listing.resource_version):
                        if event.type == "MODIFIED" and ready_nodes([event.object]) - ready:
                            break
                except (Gone, Retryable):
                    continue
        finally:
            await client.close()

    try:
        asyncio.run(asyncio.wait_for(run(), timeout_s))
    except TimeoutError as error:
        missing = ", ".join(sorted(set(names) - ready))
        raise Retryable(f"not Ready after {timeout_s:.0f} s: {missing}", reason="NodesNotReady") from error
