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

OURS, OURS_BARE = "espalier", "espalier, protocol only"
DEFINITION = "first submission to last durable result"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the scenario's result takes over."""

    metrics: Mapping[str, Figure]
    ratios: Mapping[str, float]
    peers: Mapping[str, str]


def compare(
    workers: Callable[[], float], protocol: Callable[[], float], *, tasks: int, n: int, warmup: int
) -> Comparison:
    """Each measures the coordinator once, in tasks per second: with real workers, and with clients that speak the
    protocol and run nothing. JetStream brings no worker, so its bare client is set against the latter. A peer that
    fails fails the benchmark.
    """
    places = places_from(os.environ)
    server = ensure(places, Terminal(), families=(NATS,))["nats-server"]
    rates: dict[str, list[float]] = {name: [] for name in (OURS, OURS_BARE, *(peer.name for peer in PEERS))}
    for repetition in range(warmup + n):
        found = {OURS: workers(), OURS_BARE: protocol()}
        found |= {peer.name: measure(peer, places.cache, server, tasks=tasks) for peer in PEERS}
        if repetition >= warmup:
            for name, rate in found.items():
                rates[name].append(rate)
    figures = {name: figure(values, "tasks/s") for name, values in rates.items()}
    against = {peer.name: OURS_BARE if peer.is_nats else OURS for peer in PEERS}
    ratios = {f"{ours} / {name}": figures[ours].median / figures[name].median for name, ours in against.items()}
    versions = {
        peer.name: environment(places.cache, peer.name, peer.requirements).version(peer.package) for peer in PEERS
    }
    metrics = {f"{name}, {DEFINITION}": found for name, found in figures.items()}
    return Comparison(metrics, ratios, {**versions, "redis": brokers.redis_version()})
