"""The agent's metrics, served by the kubelet API."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """One registry per agent, so that two agents in one test process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.pods = Gauge("espalier_node_pods", "Pods that this agent works on.", registry=self.registry)
        self.starts = Counter(
            "espalier_node_container_starts_total", "Container runs started.", ["outcome"], registry=self.registry
        )
        self.exits = Counter(
            "espalier_node_container_exits_total", "Container runs ended.", ["outcome"], registry=self.registry
        )
        self.adopted = Counter(
            "espalier_node_adopted_total", "Running containers found after a restart.", registry=self.registry
        )
        self.probe_failures = Counter(
            "espalier_node_probe_failures_total", "Failed probes.", ["kind"], registry=self.registry
        )
        self.api_calls = Counter(
            "espalier_node_api_calls_total", "Calls to the API server.", ["verb", "code"], registry=self.registry
        )
        self.start_seconds = Histogram(
            "espalier_node_pod_start_seconds", "From seeing a pod to its first container running.",
            buckets=(0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60), registry=self.registry,
        )
        self.lease_renewed = Gauge(
            "espalier_node_lease_renewed_timestamp_seconds", "When the Lease was last renewed.", registry=self.registry
        )
        self.healthy = Gauge("espalier_node_healthy", "1 while the agent's own check passes.", registry=self.registry)
