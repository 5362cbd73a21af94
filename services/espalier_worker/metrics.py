"""Metrics of one worker."""

from __future__ import annotations

from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_DURATIONS_S = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Held(Protocol):
    """Tasks that a worker holds, by where they stand."""

    @property
    def running(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def unacked(self) -> int: ...


class Metrics:
    """One registry per worker, so that tests may run several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.attempts = Counter(
            "espalier_worker_attempts", "Attempts ended, by task type, outcome and reason.",
            ("type", "outcome", "reason"), registry=self.registry,
        )
        self.duration = Histogram(
            "espalier_worker_attempt_seconds", "Duration of attempts.", ("type",), buckets=_DURATIONS_S,
            registry=self.registry,
        )
        self.running = Gauge("espalier_worker_running", "Attempts running now.", registry=self.registry)
        self.queued = Gauge("espalier_worker_queued", "Tasks fetched, not started.", registry=self.registry)
        self.unacked = Gauge("espalier_worker_unacked", "Results not yet acked.", registry=self.registry)
        self.connected = Gauge("espalier_worker_connected", "1 while the session is open.", registry=self.registry)
        self.sessions = Counter("espalier_worker_sessions", "Sessions opened.", registry=self.registry)
        self.loop_lag = Gauge("espalier_worker_loop_lag_seconds", "How late the event loop is.", registry=self.registry)

    def show(self, held: Held) -> None:
        """From now on each scrape reads these off `held`."""
        self.running.set_function(lambda: held.running)
        self.queued.set_function(lambda: held.queued)
        self.unacked.set_function(lambda: held.unacked)
