"""The one number that pools are scaled by, and its Prometheus gauge.

`espalier_pending_work_units{pool}` is the pool's tasks that run plus those that could run now. Divided by the number of
workers it is an HPA's AverageValue, whose target is what one worker clears in the time in which a task shall be done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from espalier_coordinator.host import Host
from espalier_coordinator.pools import pending_units

METRIC = "espalier_pending_work_units"


@dataclass(frozen=True, slots=True)
class Pending(Collector):
    """Pending work units of the pools that the settings name."""

    host: Host
    pools: frozenset[str]

    def now(self) -> Mapping[str, int]:
        """By pool, 0 for one without work."""
        engine = self.host.engine
        return pending_units(engine.jobs, engine.ready.depths(), engine.workers.values(), self.pools)

    def collect(self) -> Iterator[Metric]:
        gauge = GaugeMetricFamily(METRIC, "Tasks that run or could run, by shared pool.", labels=["pool"])
        for pool, units in self.now().items():
            gauge.add_metric([pool], units)
        yield gauge
