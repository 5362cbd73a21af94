"""Settings of the operator, from `ESPALIER_OPERATOR_*` (docs/reference/contracts.md)."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Json

from espalier_kit.settings import Settings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
HostPort = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^\s:/]+):[0-9]{1,5}$")]


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(ipaddress.ip_network(part.strip()) for part in value.split(",") if part.strip())


def _names(value: object) -> object:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


class OperatorSettings(Settings):
    """What the administrator decides."""

    host: str = Field(default="127.0.0.1", description="Where health and metrics are served.")
    port: int = Field(default=8080, ge=0, le=65535, description="Of health and metrics.")
    namespace: str = Field(min_length=1, description="Its own: where its Lease, the coordinator and the pools are.")
    pod_name: str = Field(default="", description="Names this process in the Lease; empty outside a pod.")
    coordinator: HostPort = Field(description="HOST:PORT of its gRPC.")
    coordinator_web: str = Field(pattern=r"^https://[^\s/]+$", description="https://HOST:PORT of its HTTP.")
    coordinator_name: str = Field(min_length=1, description="Name in the coordinator's certificate.")
    token_file: Path = Field(
        default=Path("/var/run/secrets/espalier/token"), description="Its service account's token for the coordinator."
    )
    node_addresses: Annotated[tuple[Network, ...], BeforeValidator(_networks)] = Field(
        default=(), description="Where nodes may have serving certificates: CIDRs, comma-separated."
    )
    pools: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(
        default=(), description="Shared worker pools that the chart made."
    )
    policies_file: Annotated[Path | None, BeforeValidator(lambda value: value or None)] = Field(
        default=None, description="NetworkPolicies for namespaces that have jobs; empty: none are made."
    )
    worker_image: str = Field(min_length=1, description="Of the workers on Linux nodes.")
    worker_resources: Json[dict[str, dict[str, str]]] = Field(
        default_factory=dict, description="Requests and limits of a job's workers on Linux nodes that ask for none."
    )
    mlx_image: str = Field(min_length=1, description="Of the model servers.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="Of both images: Always, IfNotPresent or Never."
    )
    kubeconfig: Path | None = Field(default=None, description="Outside a cluster: whose credentials to use.")
