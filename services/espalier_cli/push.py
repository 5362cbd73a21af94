"""`espalier push`: bytes into the artifact store of a namespace."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from espalier_cli.connection import artifacts_of, cluster_of
from espalier_cli.options import SYSTEM_NAMESPACE, Kubeconfig, Namespace, System, Where
from espalier_cli.packing import chunks, digest_of, packed
from espalier_cli.terminal import out, run
from espalier_kit.artifacts import SCHEME
from espalier_kit.errors import Retryable
from espalier_rpc.artifacts import HttpArtifacts

_TRIES = 3


def push(
    path: Path, namespace: Namespace = "default", kubeconfig: Kubeconfig = None, system: System = SYSTEM_NAMESPACE
) -> None:
    """Store a file, or a folder as a .tar.gz, and print its address for `spec.assignment` or `spec.submissions`."""

    async def work() -> None:
        where = Where(kubeconfig, namespace, system)
        with packed(path) as content:
            async with cluster_of(where) as cluster, artifacts_of(cluster, where) as store:
                out.print(await store_file(store, content))

    run(work())


async def store_file(store: HttpArtifacts, content: Path) -> str:
    """Store a file unless it is there already; returns `artifact://<sha256>`."""
    digest = digest_of(content)
    if await store.exists(digest):
        return SCHEME + digest
    for number in count(1):
        try:
            return SCHEME + await store.put(chunks(content))
        except Retryable:
            if number == _TRIES:
                raise
    raise AssertionError("unreachable: count() never ends")
