"""How long `espalier local up` takes with a warm cache: to three Ready nodes, and to the charts' pods being ready."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from bench.runner import Options, Result, Scenario, machine, repeat
from espalier_local.cluster import down
from espalier_local.layout import Layout
from espalier_local.places import places_from
from espalier_local.processtable import leftovers
from espalier_local.progress import Silent

N = 5
UNITS = {
    "command start to three Ready nodes": "s",
    "command start to the charts' pods ready": "s",
    "resident memory of it all": "MiB",
}
_NODES_DONE = "✓ 3 nodes"


def run(options: Options) -> Result:
    """Up and down, n times, as a user would; raises when a command fails."""
    warmup, n = (0, 1) if options.quick else (1, N)
    metrics = repeat(_measure, warmup=warmup, n=n, units=UNITS)
    return Result(
        scenario=SCENARIO.name, machine=machine(), seed=options.seed, warmup=warmup, n=n, metrics=metrics,
        note="etcd, API server, controller manager, scheduler, three node agents, operator and coordinator; no peer.",
    )


def _measure() -> Mapping[str, float]:
    places, name = places_from(os.environ), f"bench-{os.getpid()}"
    try:
        nodes_s, all_s = timed_up(name)
        return dict(zip(UNITS, (nodes_s, all_s, memory_mib(Layout(places.clusters / name).root)), strict=True))
    finally:
        down(name, places, Silent())


def timed_up(name: str, *options: str) -> tuple[float, float]:
    """Seconds from the command's start to three Ready nodes, and to its end. Raises when it fails."""
    command = [str(Path(sys.executable).with_name("espalier")), "local", "up", "--name", name, *options]
    started = time.monotonic()
    nodes_s = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if _NODES_DONE in line:
                nodes_s = time.monotonic() - started
    if process.returncode or not nodes_s:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}")
    return nodes_s, time.monotonic() - started


def memory_mib(root: Path) -> float:
    """Resident memory of every process of the cluster in that directory, outside containers."""
    total = 0
    for process in leftovers(root):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total / 2**20


SCENARIO = Scenario("local", "From `espalier local up` to a cluster that takes jobs", run)
