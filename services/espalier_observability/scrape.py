"""How Prometheus finds our programs: by the labels that all our pods carry, at the port that serves metrics."""

from __future__ import annotations

from typing import Any

_POD = "__meta_kubernetes_pod_"
_LABEL = f"{_POD}label_app_kubernetes_io_"
PORTS = "http|https|metrics"
"""Names of the ports that serve /metrics; others of the same pods serve calls."""


def configuration() -> list[dict[str, Any]]:
    """`scrape_configs`, for a Prometheus with rights to list pods and nodes and to read nodes/metrics."""
    return [
        {
            "job_name": "espalier",
            "kubernetes_sd_configs": [{"role": "pod"}],
            # Certificates carry Service names, pods are dialled by address; what they answer is no secret.
            "tls_config": {"insecure_skip_verify": True},
            "relabel_configs": [
                {
                    "source_labels": [f"{_LABEL}name", f"{_LABEL}managed_by"],
                    "regex": "espalier;.*|.*;espalier",
                    "action": "keep",
                },
                {"source_labels": [f"{_POD}container_port_name"], "regex": PORTS, "action": "keep"},
                {"source_labels": [f"{_POD}phase"], "regex": "Running", "action": "keep"},
                {
                    "source_labels": [f"{_POD}container_port_name"], "regex": "https", "target_label": "__scheme__",
                    "replacement": "https",
                },
                {"source_labels": [f"{_LABEL}component"], "target_label": "component"},
                {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                {"source_labels": [f"{_POD}name"], "target_label": "pod"},
            ],
        },
        {
            "job_name": "espalier-nodes",
            "scheme": "https",
            "kubernetes_sd_configs": [{"role": "node"}],
            "relabel_configs": [
                {
                    "source_labels": ["__meta_kubernetes_node_label_espalier_dev_node_kind"], "regex": ".+",
                    "action": "keep",
                },
                {"source_labels": ["__meta_kubernetes_node_name"], "target_label": "node"},
            ],
        },
    ]  # fmt: skip
