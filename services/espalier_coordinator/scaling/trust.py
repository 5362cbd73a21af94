"""Who may call the metrics API: only the API server's aggregator, known by its client certificate.

The aggregator has authenticated and authorised the user by then. Whose certificates it presents stands in ConfigMap
`extension-apiserver-authentication` of kube-system, as for every extension API server. Pure but for `read`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from espalier_kit.errors import Permanent
from espalier_kube.cluster import CONFIG_MAP, Cluster, Object

NAME, NAMESPACE = "extension-apiserver-authentication", "kube-system"


@dataclass(frozen=True, slots=True)
class Trust:
    """Certificates of `ca_pem` that carry one of `names`; no names: any of that authority."""

    ca_pem: str
    names: frozenset[str]


async def read(cluster: Cluster) -> Trust:
    """As the API server publishes it now. Raises `Permanent` where it has no aggregation, and the client's errors."""
    return trust_of(await cluster.get(CONFIG_MAP, NAME, NAMESPACE))


def trust_of(config_map: Object) -> Trust:
    """Raises `Permanent` where the API server publishes no authority for its aggregator."""
    data = config_map.get("data") or {}
    ca_pem = data.get("requestheader-client-ca-file", "")
    if not ca_pem:
        raise Permanent(f"ConfigMap {NAMESPACE}/{NAME} has no requestheader-client-ca-file: the API server has no "
                        "aggregation layer", reason="NoAggregation")
    return Trust(ca_pem, frozenset(json.loads(data.get("requestheader-allowed-names") or "[]")))


def refusal(certificate: Mapping[str, Any] | None, trust: Trust) -> tuple[int, str] | None:
    """HTTP status and sentence for a caller who is not the aggregator; None for the aggregator.

    `certificate` is a verified peer certificate as Python's ssl gives it; None without one.
    """
    if not certificate:
        return 401, "only the API server may ask here: it presents a client certificate"
    name = next((value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"), "")
    if trust.names and name not in trust.names:
        return 403, f"{name!r} is not the API server's aggregator"
    return None
