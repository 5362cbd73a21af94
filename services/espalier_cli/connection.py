"""How the CLI reaches a cluster and, through it, the coordinator.

The cluster is named by the caller or is this checkout's own local one, never the current context of the user. The
coordinator's address and authority are in ConfigMap `espalier-coordinator`; the token is a short one of the
namespace's submitter account.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from espalier_api.names import COORDINATOR_AUDIENCE, MANAGED_BY
from espalier_cli.forwarding import reachable
from espalier_cli.options import Where
from espalier_kit.errors import Conflict, Misconfigured, NotFound
from espalier_kube.client import connect
from espalier_kube.cluster import CONFIG_MAP, GRADING_JOB, Cluster, Kind, Object
from espalier_kube.objects import metadata
from espalier_local.layout import Layout
from espalier_local.places import default_name, places_from
from espalier_rpc.artifacts import HttpArtifacts, web_client
from espalier_rpc.rest import RestClient

SUBMITTER = "espalier-submitter"
COORDINATOR_MAP = "espalier-coordinator"
_TOKEN_S = 3600


@asynccontextmanager
async def cluster_of(where: Where) -> AsyncIterator[Cluster]:
    """The Kubernetes API. Raises `Misconfigured` when no cluster is named and no local one is up."""
    cluster = await connect(_kubeconfig(where))
    try:
        yield cluster
    finally:
        await cluster.close()


@asynccontextmanager
async def artifacts_of(cluster: Cluster, where: Where) -> AsyncIterator[HttpArtifacts]:
    """The artifact store of a namespace, as its submitter."""
    found = await _coordinator(cluster, where.system_namespace)
    token = await submitter_token(cluster, where.namespace)
    async with reachable(found["web"], _kubeconfig(where)) as web, web_client(web, ca_pem=found["ca.crt"]) as http:
        yield HttpArtifacts(http, namespace=where.namespace, token=lambda: token, server_name=found["name"])


@asynccontextmanager
async def rest_of(cluster: Cluster, where: Where) -> AsyncIterator[RestClient]:
    """The calls of the cluster's coordinator, as the namespace's submitter."""
    found = await _coordinator(cluster, where.system_namespace)
    token = await submitter_token(cluster, where.namespace)
    async with reachable(found["web"], _kubeconfig(where)) as web, web_client(web, ca_pem=found["ca.crt"]) as http:
        yield RestClient(http, token=lambda: token, server_name=found["name"])


async def submitter_token(cluster: Cluster, namespace: str) -> str:
    """A token for the coordinator, of account `espalier-submitter`, which is created where it is missing."""
    account: Object = {
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": metadata(SUBMITTER, namespace, labels={MANAGED_BY: "espalier"}),
    }
    try:
        await cluster.create(account)
    except Conflict:
        pass  # it was there
    except NotFound as error:
        raise NotFound(f"namespace {namespace} does not exist: create it, or choose another with -n") from error
    token, _ = await cluster.create_token(
        SUBMITTER, namespace, audience=COORDINATOR_AUDIENCE, expiration_s=_TOKEN_S
    )
    return token


async def job_of(cluster: Cluster, name: str, namespace: str, kind: Kind = GRADING_JOB) -> Object:
    """A job of that kind. Raises `NotFound` with what to do."""
    try:
        return await cluster.get(kind, name, namespace)
    except NotFound as error:
        see = "espalier jobs list -A" if kind == GRADING_JOB else f"kubectl get {kind.plural} -A"
        said = f"there is no {kind.kind} {name} in namespace {namespace}: see `{see}`"
        raise NotFound(said) from error


async def _coordinator(cluster: Cluster, namespace: str) -> dict[str, str]:
    try:
        data = (await cluster.get(CONFIG_MAP, COORDINATOR_MAP, namespace)).get("data") or {}
    except NotFound as error:
        raise NotFound(
            f"ConfigMap {namespace}/{COORDINATOR_MAP} does not exist: install the chart `espalier`, "
            "and wait for its operator; another namespace is chosen with --system-namespace"
        ) from error
    missing = [key for key in ("web", "name", "ca.crt") if not data.get(key)]
    if missing:
        raise Misconfigured(f"ConfigMap {namespace}/{COORDINATOR_MAP} lacks {', '.join(missing)}")
    return {key: str(value) for key, value in data.items()}


def _kubeconfig(where: Where) -> Path:
    return where.kubeconfig or _local_kubeconfig()


def _local_kubeconfig() -> Path:
    places = places_from(os.environ)
    name = default_name(places.checkout)
    path = Layout(places.clusters / name).kubeconfig
    if not path.is_file():
        raise Misconfigured(
            f"the local cluster {name} is not up and no other is named: "
            "run `espalier local up`, or give --kubeconfig or ESPALIER_KUBECONFIG"
        )
    return path
