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

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    namespace: str = Field(min_length=1)
    pod_name: str = Field(default="", description="Names this process in the Lease; empty outside a pod.")
    coordinator: HostPort
    coordinator_web: str = Field(pattern=r"^https://[^\s/]+$")
    coordinator_name: str = Field(min_length=1)
    token_file: Path = Path("/var/run/secrets/espalier/token")
    node_addresses: Annotated[tuple[Network, ...], BeforeValidator(_networks)] = ()
    pools: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(
        default=(), description="Shared worker pools that the chart made."
    )
    policies_file: Annotated[Path | None, BeforeValidator(lambda value: value or None)] = Field(
        default=None, description="NetworkPolicies for namespaces that have jobs; empty: none are made."
    )
    worker_image: str = Field(min_length=1)
    worker_resources: Json[dict[str, dict[str, str]]] = Field(
        default_factory=dict, description="Requests and limits of a job's workers on Linux nodes that ask for none."
    )
    mlx_image: str = Field(min_length=1)
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    kubeconfig: Path | None = Field(default=None, description="Outside a cluster: whose credentials to use.")
