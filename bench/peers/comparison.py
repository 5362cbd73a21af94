"""The coordinator and its peers under one definition, one after the other within each repetition."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.peers import brokers
from bench.peers.environments import environment
from bench.peers.queues import PEERS, measure
from bench.runner import Figure, figure
from espalier_local.assets import NATS, ensure
from espalier_local.places import places_from
from espalier_local.progress import Terminal

DEFINITION = "first submission to last durable result"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the scenario's result takes over."""

    metrics: Mapping[str, Figure]
    ratios: Mapping[str, float]
    peers: Mapping[str, str]


def compare(ours: Callable[[], float], *, tasks: int, n: int, warmup: int) -> Comparison:
    """`ours` measures the coordinator once, in tasks per second. A peer that fails fails the benchmark."""
    places = places_from(os.environ)
    server = ensure(places, Terminal(), families=(NATS,))["nats-server"]
    rates: dict[str, list[float]] = {"espalier": [], **{peer.name: [] for peer in PEERS}}
    for repetition in range(warmup + n):
        found = {"espalier": ours()}
        found |= {peer.name: measure(peer, places.cache, server, tasks=tasks) for peer in PEERS}
        if repetition >= warmup:
            for name, rate in found.items():
                rates[name].append(rate)
    metrics = {f"{name}, {DEFINITION}": figure(values, "tasks/s") for name, values in rates.items()}
    medians = {name: metrics[f"{name}, {DEFINITION}"].median for name in rates}
    ratios = {f"espalier / {peer.name}": medians["espalier"] / medians[peer.name] for peer in PEERS}
    versions = {
        peer.name: environment(places.cache, peer.name, peer.requirements).version(peer.package) for peer in PEERS
    }
    return Comparison(metrics, ratios, {**versions, "redis": brokers.redis_version()})
