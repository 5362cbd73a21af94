"""Shared worker pools: which account belongs to which, what that lets it touch, and how much work waits for each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from espalier_coordinator.access import Identity
from espalier_coordinator.scheduling import Lane, Profile, may_run
from espalier_coordinator.state import JobEntry, WorkerEntry
from espalier_kit.errors import Permanent
from espalier_kit.execution import TaskState

NO_POOLS: Mapping[str, str] = MappingProxyType({})

_ACCOUNT = re.compile(r"system:serviceaccount:[a-z0-9.-]+:[a-z0-9.-]+")
_POOL = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


def read_pools(value: object) -> object:
    """`ACCOUNT=POOL,…` as a mapping of user name to pool. Raises `ValueError` with what is wrong."""
    if not isinstance(value, str):
        return value
    pools: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        account, _, pool = item.partition("=")
        if not _ACCOUNT.fullmatch(account) or not _POOL.fullmatch(pool):
            raise ValueError(f"{item!r}: expected system:serviceaccount:NAMESPACE:NAME=POOL")
        if pools.setdefault(account, pool) != pool:
            raise ValueError(f"{account} is named for two pools: an account belongs to one")
    return pools


def check_pool(pool: str, known: Iterable[str]) -> None:
    """Raise `Permanent` for a job of a pool that nobody may ever work for; empty is no pool."""
    names = sorted(set(known))
    if pool and pool not in names:
        there = f"the pools are {', '.join(names)}" if names else "there are no pools"
        raise Permanent(f"there is no worker pool {pool!r}: {there}", reason="UnknownPool")


def require_artifacts(identity: Identity, namespace: str, jobs: Iterable[JobEntry]) -> None:
    """Raise `Forbidden` unless the caller may read and write artifacts of `namespace`.

    A pool's workers may for as long as a job of that namespace is open in their pool.
    """
    if identity.pool and any(
        entry.job.pool == identity.pool and entry.job.namespace == namespace and not entry.is_finished
        for entry in jobs
    ):
        return
    identity.require_namespace(namespace)


def pending_units(
    jobs: Mapping[str, JobEntry], waiting: Mapping[Lane, int], workers: Iterable[WorkerEntry], pools: Iterable[str]
) -> dict[str, int]:
    """Work units per pool: tasks that its workers run, and those of the `waiting` that they could.

    What is held back, waits for another task, is beyond its job's `max_running` or needs what none of the pool's
    workers offers asks for no further worker.
    """
    members = [worker for worker in workers if worker.profile.pool]
    pending = Counter(dict.fromkeys(sorted(set(pools)), 0))
    for worker in members:
        pending[worker.profile.pool] += len(worker.leases)
    ready: Counter[str] = Counter()
    for lane, count in waiting.items():
        if lane.pool and _is_wanted(lane, [w.profile for w in members if w.profile.pool == lane.pool]):
            ready[lane.job_uid] += count
    for uid, count in ready.items():
        entry = jobs[uid]
        if not entry.is_held:
            room = entry.job.max_running - entry.counts[TaskState.RUNNING] if entry.job.max_running else count
            pending[entry.job.pool] += max(0, min(count, room))
    return dict(pending)


def _is_wanted(lane: Lane, profiles: list[Profile]) -> bool:
    """Another worker like these would take the task; without any, nobody knows that it would not."""
    return not profiles or any(may_run(profile, lane) for profile in profiles)
