"""Who enters the batch next. Pure: the same values give the same choice.

First come, first served, with one exception: while somebody computes a shared prefix, others who need the very same
prefix wait for it. Three judge calls with one rubric then pay for the rubric once instead of three times.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A waiting request; an empty `prefix_key` means that it shares nothing."""

    id: str
    prefix_key: str = ""


def choose(
    waiting: Sequence[Candidate], *, running: int, max_concurrency: int, cached: Collection[str],
    computing: Collection[str],
) -> tuple[str, ...]:
    """Ids to start now, in order. `cached` and `computing` are the prefix keys that exist or are being made."""
    free = max_concurrency - running
    in_work = set(computing)
    chosen: list[str] = []
    for candidate in waiting:
        if len(chosen) >= free:
            break
        key = candidate.prefix_key
        if key and key not in cached:
            if key in in_work:
                continue
            in_work.add(key)
        chosen.append(candidate.id)
    return tuple(chosen)
