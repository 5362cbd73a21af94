"""Metrics of espalier-coordinator, read from the engine when they are scraped: the hot path counts plain integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from espalier_coordinator.artifacts import ArtifactFiles
from espalier_coordinator.host import Host
from espalier_coordinator.state import Statistics
from espalier_kit.execution import TaskState

_PREFIX = "espalier_coordinator"
MAX_NAMESPACES = 20
"""Told one by one."""
TAG_SETS, OTHERS = 50, "others"

_COUNTERS = {
    "granted": "Attempts handed to workers.",
    "accepted": "Results that counted: one per task.",
    "duplicates": "Results that came again.",
    "fenced": "Results of attempts that were no longer leased to their sender.",
    "lost_leases": "Attempts whose worker vanished.",
    "retries": "Attempts that failed and were queued again.",
    "timeouts": "Attempts that the coordinator itself had to end.",
    "handed_back": "Leases returned unstarted.",
    "adopted": "Leases that workers kept over a restart of the coordinator.",
    "revoked": "Leases asked back from busy workers for idle ones.",
    "cache_hits": "Tasks that ended with the result of an equal one.",
    "reopened": "Failed tasks that somebody retried.",
    "archived": "Completed jobs moved out of memory.",
}


class EngineCollector(Collector):
    """Gauges and counters of one host; labels are bounded by task types and states."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def collect(self) -> Iterator[Metric]:
        engine, writer = self._host.engine, self._host.writer
        yield from _counters(engine.statistics)
        depth = GaugeMetricFamily(f"{_PREFIX}_ready_tasks", "Tasks waiting for a worker.", labels=["type"])
        by_type: Counter[str] = Counter()
        for lane, count in engine.ready.depths().items():
            by_type[lane.type] += count
        for name, count in by_type.items():
            depth.add_metric([name], count)
        yield depth
        running = sum(entry.counts[TaskState.RUNNING] for entry in engine.jobs.values())
        yield GaugeMetricFamily(f"{_PREFIX}_running_tasks", "Tasks leased to workers.", value=running)
        connected = [w for w in engine.workers.values() if w.session is not None]
        yield GaugeMetricFamily(f"{_PREFIX}_workers", "Connected workers.", value=len(connected))
        capacity = sum(w.capacity for w in connected)
        yield GaugeMetricFamily(f"{_PREFIX}_capacity", "Tasks that they can run at once.", value=capacity)
        jobs = GaugeMetricFamily(f"{_PREFIX}_jobs", "Jobs by state.", labels=["state"])
        for state, count in Counter(entry.state.value for entry in engine.jobs.values()).items():
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily(f"{_PREFIX}_archived_jobs", "Completed jobs that are only in the database.",
                                value=len(engine.archived))
        yield GaugeMetricFamily(f"{_PREFIX}_cached_results", "Results kept to answer for equal tasks.",
                                value=len(engine.cache))
        yield GaugeMetricFamily(f"{_PREFIX}_reserved_slots", "Slots held back by reservations.",
                                value=sum(r.slots for r in engine.reservations.values()))
        yield CounterMetricFamily(f"{_PREFIX}_commits", "Transactions written.", value=writer.commits)
        oldest = GaugeMetricFamily(
            f"{_PREFIX}_oldest_ready_seconds", "Longest wait of a task whose turn is next, by the tags it requires.",
            labels=["tags"],
        )
        for tags, seconds in _bounded(engine.waits()).items():
            oldest.add_metric([tags], seconds)
        yield oldest


def _bounded(waits: Mapping[frozenset[str], float]) -> dict[str, float]:
    """By joined tags; submitters choose these, so all sets beyond the longest waiting `TAG_SETS` share a label."""
    found: dict[str, float] = {}
    for tags, seconds in sorted(waits.items(), key=lambda item: -item[1]):
        name = ",".join(sorted(tags)) if len(found) < TAG_SETS else OTHERS
        found[name] = max(seconds, found.get(name, 0.0))
    return found


def _counters(statistics: Statistics) -> Iterator[Metric]:
    for name, text in _COUNTERS.items():
        yield CounterMetricFamily(f"{_PREFIX}_{name}", text, value=getattr(statistics, name))
    ended = CounterMetricFamily(f"{_PREFIX}_tasks", "Tasks that ended, by final state.", labels=["state"])
    for state, count in statistics.ended.items():
        ended.add_metric([state.value], count)
    yield ended


class ArtifactCollector(Collector):
    """What lies on the volume; the label is bounded: the fullest namespaces, and the others together as none."""

    def __init__(self, files: ArtifactFiles) -> None:
        self._files = files

    def collect(self) -> Iterator[Metric]:
        used = self._files.used
        gauge = GaugeMetricFamily(f"{_PREFIX}_artifact_used_bytes", "Artifacts kept, by namespace.",
                                  labels=["namespace"])
        fullest = used.most_common(MAX_NAMESPACES)
        for namespace, size in fullest:
            gauge.add_metric([namespace], size)
        gauge.add_metric([""], used.total() - sum(size for _, size in fullest))
        yield gauge
        yield CounterMetricFamily(f"{_PREFIX}_artifacts_removed", "Artifacts that went because nothing named them.",
                                  value=self._files.removed)


class Metrics:
    """The registry of one process."""

    def __init__(self, host: Host, files: ArtifactFiles) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(EngineCollector(host))
        self.registry.register(ArtifactCollector(files))
        self.artifact_bytes = Histogram(
            f"{_PREFIX}_artifact_bytes", "Size of artifacts put.", registry=self.registry,
            buckets=[2.0**n for n in range(10, 32, 3)],
        )
        commit = Histogram(
            f"{_PREFIX}_commit_seconds", "From a transaction's first write to its being on disk.",
            registry=self.registry, buckets=[0.001 * 2.0**n for n in range(13)],
        )
        host.writer.took = commit.observe
