"""Policies between jobs of one priority: first come first served, or shares by weight. No I/O.

Shares are stride scheduling (Waldspurger & Weihl 1995): each grant moves its group ahead by 1 / weight, the group that
is furthest behind goes first, and one that was away comes back where the others are, without credit.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum


class Fairness(StrEnum):
    """How jobs of one priority share the workers."""

    PRIORITY = "priority"
    """Strictly by submission."""
    JOBS = "weighted-jobs"
    NAMESPACES = "weighted-namespaces"


class Shares:
    """Where each group stands; all of it is idle under `Fairness.PRIORITY`."""

    def __init__(self, fairness: Fairness) -> None:
        self._fairness = fairness
        self._is_on = fairness is not Fairness.PRIORITY
        self._position: dict[str, float] = {}
        self._lanes: Counter[str] = Counter()
        self._weights: dict[str, float] = {}
        self._front = 0.0
        """Position of the group that was served last."""

    def weigh(self, job_uid: str, weight: float) -> None:
        """What 1 / weight of a grant to this job counts."""
        if self._is_on:
            self._weights[job_uid] = weight

    def of(self, namespace: str, job_uid: str) -> float:
        """How far its group is: smaller goes first."""
        return self._position.get(self._group(namespace, job_uid), 0.0) if self._is_on else 0.0

    def enter(self, namespace: str, job_uid: str) -> None:
        """A lane has tasks now."""
        if self._is_on:
            group = self._group(namespace, job_uid)
            if not self._lanes[group]:
                self._position[group] = max(self._position.get(group, 0.0), self._front)
            self._lanes[group] += 1

    def leave(self, namespace: str, job_uid: str) -> None:
        """A lane has none any more."""
        if self._is_on:
            self._lanes[self._group(namespace, job_uid)] -= 1

    def charge(self, namespace: str, job_uid: str) -> None:
        """A task of it was handed out."""
        if self._is_on:
            group = self._group(namespace, job_uid)
            self._front = max(self._front, self._position[group])
            self._position[group] += 1.0 / self._weights.get(job_uid, 1.0)

    def forget(self, job_uid: str) -> None:
        """The job is gone."""
        self._weights.pop(job_uid, None)
        if self._fairness is Fairness.JOBS:
            self._position.pop(job_uid, None)
            self._lanes.pop(job_uid, None)

    def _group(self, namespace: str, job_uid: str) -> str:
        return job_uid if self._fairness is Fairness.JOBS else namespace
