"""What differs from one kind of job to the next; `plan.job` tells the life that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic

from espalier_api.common import JobStatus
from espalier_operator.plan.conditions import Conditions
from espalier_operator.plan.ending import Ending
from espalier_operator.plan.facts import J, JobFacts, Problem
from espalier_operator.plan.outcome import Followed
from espalier_operator.settings import OperatorSettings
from espalier_rpc.views import JobRequest, JobView

REJECTED = frozenset({"SourceNotFound", "ModelNotFound", "UnknownPool", "BadTargets", "TargetNotFound"})
"""Reasons of a problem that only another spec mends: the job is not accepted. What else is missing may still come."""


@dataclass(frozen=True, slots=True)
class Life(Generic[J]):
    """A kind of job, as functions of its facts."""

    request: Callable[[JobFacts[J]], JobRequest]
    """What is handed over to the coordinator."""
    problem: Callable[[JobFacts[J]], Problem | None]
    """What of the spec or its surroundings a person must mend first, beyond sources, servers and pools."""
    may_begin: Callable[[JobFacts[J]], bool]
    """Whether its work may be handed over."""
    goes: Callable[[JobFacts[J]], bool]
    """Whether work that was handed over should run now, or pause."""
    is_admitted: Callable[[JobFacts[J], JobView], bool]
    checked: str
    """What an admission has done, for the condition Accepted."""
    said: Callable[[JobFacts[J], JobView], str]
    """How far it is, in words."""
    completed: Callable[[JobFacts[J], JobView], Ending]
    """How it ended, once every task has."""
    numbers: Callable[[JobFacts[J], JobView, datetime], dict[str, Any]]
    """Fields of the status while it runs."""
    reported: Callable[[JobFacts[J], Ending, Conditions], dict[str, Any]]
    """Fields of the status from the report at the end; conditions of the kind's own."""
    degraded: Callable[[JobView], Sequence[tuple[str, str]]]
    """(reason, sentence) for what has gone less well than wished."""
    unreached: Callable[[JobFacts[J], JobView], str] = lambda facts, view: ""
    """What of somebody else's it waits for before it tries any submission, in words that say what to change."""
    pods: Callable[[JobFacts[J], OperatorSettings, bool], Followed] = lambda facts, settings, suspend: Followed()
    """Pods beside its workers; the last argument: they should pause."""
    sticky: tuple[str, ...] = ()
    """Degradations that touch results: once true, true for good."""


def updated(status: JobStatus, fields: dict[str, Any]) -> JobStatus:
    """The status with these fields: a copy of its own class."""
    return status.model_copy(update=fields)
