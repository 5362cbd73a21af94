"""Macs are scarce: a job's model servers are placed all or none, the first in order first.

Order: priority, age, name. A job that holds Macs keeps them. A job that could never fit does not block others.
"""

from __future__ import annotations

from dataclasses import dataclass

from espalier_operator.plan.facts import Contender, Holder, MacFacts


@dataclass(frozen=True, slots=True)
class Placement:
    """Whether the Macs are this job's now; `message` says for what it waits."""

    granted: bool
    message: str = ""


def place(
    me: Contender, *, has_some: bool, macs: MacFacts, holders: tuple[Holder, ...], others: tuple[Contender, ...]
) -> Placement:
    """Decide for one job. Every reader of the same facts decides alike, so no two jobs get one Mac."""
    if me.need == 0 or has_some:
        return Placement(granted=True)
    if me.need > macs.capacity:
        return Placement(granted=False, message=_too_few(me.need, macs))
    free = macs.capacity - sum(h.macs for h in holders)
    ahead = [o for o in sorted(others) if o < me and o.need <= macs.capacity]
    reserved = sum(o.need for o in ahead)
    if me.need <= free - reserved:
        return Placement(granted=True)
    return Placement(granted=False, message=_busy(me.need, free, holders, ahead))


def _too_few(need: int, macs: MacFacts) -> str:
    away = f" ({', '.join(macs.away)} away)" if macs.away else ""
    return f"needs {_macs(need)}, but the cluster has {macs.capacity} Ready{away}: even idle that is too few"


def _busy(need: int, free: int, holders: tuple[Holder, ...], ahead: list[Contender]) -> str:
    held = ", ".join(f"{label} holds {count}" for label, count in sorted(_by_label(holders).items()))
    queue = ", ".join(f"{o.kind} {o.namespace}/{o.name} waits ahead for {o.need}" for o in ahead)
    return "; ".join(part for part in (f"needs {_macs(need)}, {max(free, 0)} free", held, queue) if part)


def _by_label(holders: tuple[Holder, ...]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for holder in holders:
        totals[holder.label] = totals.get(holder.label, 0) + holder.macs
    return totals


def _macs(count: int) -> str:
    return f"{count} Mac{'s' if count != 1 else ''}"
