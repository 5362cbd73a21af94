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
SIDES = (
    "What runs beside each server. espalier: two espalier-workers, each attempt with a deadline, cancel, progress, "
    "retries, and a result that is kept until it is acknowledged. espalier, protocol only: one process of clients that "
    "answer at once and run nothing. celery, dramatiq, arq and taskiq: two processes of their own workers, with what "
    "these do by default. jetstream brings no worker: two processes of a bare loop (fetch 200, store the results, ack) "
    "without deadline, cancel, progress or retries, which lies between our two; so both ratios are given."
)
"""For readers of the page: these are not the same amount of work."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the scenario's result takes over."""

    metrics: Mapping[str, Figure]
    ratios: Mapping[str, float]
    peers: Mapping[str, str]
    note: str


def compare(
    workers: Callable[[], float], protocol: Callable[[], float], *, tasks: int, n: int, warmup: int
) -> Comparison:
    """Each measures the coordinator once with so many tasks, in tasks per second: with real workers, and with clients
    that speak the protocol and run nothing. A peer that fails fails the benchmark.
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
    versions = {
        peer.name: environment(places.cache, peer.name, peer.requirements).version(peer.package) for peer in PEERS
    }
    return Comparison(
        {f"{name}, {DEFINITION}": found for name, found in figures.items()},
        ratios({name: found.median for name, found in figures.items()}),
        {**versions, "redis": brokers.redis_version()},
        f"{tasks} tasks each, from an empty server. {SIDES} {best({n: f.median for n, f in figures.items()})}",
    )


def ratios(rates: Mapping[str, float]) -> dict[str, float]:
    """Ours with workers against every peer; the bare protocol against those that bring no worker, too."""
    found = {f"{OURS} / {peer.name}": rates[OURS] / rates[peer.name] for peer in PEERS}
    bare = {f"{OURS_BARE} / {peer.name}": rates[OURS_BARE] / rates[peer.name] for peer in PEERS if peer.is_nats}
    return found | bare


def best(rates: Mapping[str, float]) -> str:
    """The fastest peer of each class, in words."""
    classes = {"with a worker of its own": False, "without one": True}
    found = {
        what: max((rates[peer.name], peer.name) for peer in PEERS if peer.is_nats == is_nats)
        for what, is_nats in classes.items()
    }
    said = ", ".join(f"{what}: {name} ({rate:,.0f} tasks/s)" for what, (rate, name) in found.items())
    return f"The best peer {said}."
