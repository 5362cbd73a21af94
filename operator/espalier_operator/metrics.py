"""Metrics of the operator; label values are bounded (kinds, verbs, codes)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """One registry per process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "espalier_operator_"
        self.reconciles = Counter(
            f"{name}reconciles", "Reconciles by kind and outcome.", ("kind", "outcome"), registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            f"{name}reconcile_seconds", "Duration of one reconcile.", ("kind",), registry=self.registry,
            buckets=(0.005, 0.02, 0.1, 0.5, 2.0, 10.0),
        )
        self.queue_depth = Gauge(f"{name}queue_depth", "Keys that wait.", registry=self.registry)
        self.queue_oldest_seconds = Gauge(f"{name}queue_oldest_seconds", "Age of the oldest.", registry=self.registry)
        self.api_calls = Counter(
            f"{name}api_calls", "Calls to the API server by verb and code (0: not reached).", ("verb", "code"),
            registry=self.registry,
        )
        self.writes = Counter(f"{name}writes", "Writes by verb and kind.", ("verb", "kind"), registry=self.registry)
        self.status_writes_max = Gauge(
            f"{name}status_writes_per_object_max", "Most status writes that one object has had.", registry=self.registry
        )
        self.leader = Gauge(f"{name}leader", "1 while this process holds the Lease.", registry=self.registry)
        self.loop_lag_seconds = Gauge(f"{name}loop_lag_seconds", "How late the loop woke up.", registry=self.registry)
        self.coordinator_away_seconds = Gauge(
            f"{name}coordinator_away_seconds", "How long the coordinator has not answered.", registry=self.registry
        )

    def api_call(self, verb: str, code: int) -> None:
        """Observer of the Kubernetes client."""
        self.api_calls.labels(verb, str(code)).inc()

    def write(self, verb: str, kind: str) -> None:
        """Observer of the fence."""
        self.writes.labels(verb, kind).inc()
