"""What containers use, as monitors read it."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from espalier_node.machine.base import Usage
from espalier_node.machine.linux import LinuxMachine
from espalier_node.stats import ContainerUsage, resource_metrics, summary
from tests.support.node import START, pod

WHOLE = Usage(100.5, 1 << 30)
CONTAINERS = [ContainerUsage(pod(), "a", START, Usage(1.5, 10)), ContainerUsage(pod(), "b", START, Usage(2, 20))]


def test_summary() -> None:
    found = summary("linux-1", WHOLE, CONTAINERS, START)
    assert found["node"]["cpu"]["usageCoreNanoSeconds"] == 100_500_000_000
    (told,) = found["pods"]
    assert told["podRef"]["name"] == "p"
    assert [(c["name"], c["memory"]["workingSetBytes"]) for c in told["containers"]] == [("a", 10), ("b", 20)]


def test_resource_metrics_are_parsed_by_prometheus() -> None:
    families = {family.name: family for family in text_string_to_metric_families(resource_metrics(WHOLE, CONTAINERS))}
    assert families["node_cpu_usage_seconds"].samples[0].value == 100.5
    (whole_pod,) = families["pod_memory_working_set_bytes"].samples
    assert (whole_pod.labels, whole_pod.value) == ({"namespace": "class", "pod": "p"}, 30)
    containers = families["container_cpu_usage_seconds"].samples
    assert {sample.labels["container"]: sample.value for sample in containers} == {"a": 1.5, "b": 2}


def test_this_process_uses_something_and_a_dead_one_nothing(tmp_path: Path) -> None:
    machine = LinuxMachine(tmp_path)
    own, whole = machine.usage(os.getpid()), machine.usage(None)
    assert own.memory_bytes > 1 << 20
    assert 0 < own.cpu_seconds < whole.cpu_seconds
    assert machine.usage(2**22 + 1) == Usage(0.0, 0)
