"""Options that several commands share, and how an object is named on the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from espalier_kit.errors import Permanent
from espalier_kube.cluster import BENCHMARK_COMPARISON, BENCHMARK_JOB, GRADING_JOB, Kind

SYSTEM_NAMESPACE = "espalier-system"

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the job.")]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig", envvar="ESPALIER_KUBECONFIG",
        help="Which cluster; default: the local cluster of this checkout. Your current context is never used.",
    ),
]
System = Annotated[str, typer.Option("--system-namespace", help="Namespace of the operator and the coordinator.")]

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
SHORT = {"gj": GRADING_JOB, "bj": BENCHMARK_JOB, "bmc": BENCHMARK_COMPARISON}
"""Kinds of jobs that are objects of a cluster, by the word that names them in a reference."""
SPELLED = {word: kind for short, kind in SHORT.items() for word in (short, kind.kind.lower(), kind.plural)}


@dataclass(frozen=True, slots=True)
class Where:
    """Which cluster, and where in it."""

    kubeconfig: Path | None
    namespace: str
    system_namespace: str = SYSTEM_NAMESPACE


def job_name(reference: str) -> str:
    """The name in `gj/NAME`, `gradingjob/NAME` or `NAME`. Raises `Permanent`."""
    kind, name = job_reference(reference)
    if kind != GRADING_JOB:
        raise Permanent(f"{reference!r}: the kind must be gj (GradingJob), not {kind.kind}")
    return name


def job_reference(reference: str) -> tuple[Kind, str]:
    """Kind and name in `bj/NAME`, `benchmarkjob/NAME`, …; `NAME` alone is a GradingJob. Raises `Permanent`."""
    word, _, name = reference.rpartition("/")
    kind = kind_of(word) if word else GRADING_JOB
    if not is_object_name(name):
        raise Permanent(f"{name!r} is no object name: use lower-case letters, digits, dots and dashes")
    return kind, name


def kind_of(word: str) -> Kind:
    """The kind that is meant by its short name, singular or plural. Raises `Permanent`."""
    kind = SPELLED.get(word.lower().removesuffix(".espalier.dev"))
    if kind is None:
        known = ", ".join(f"{short} ({kind.kind})" for short, kind in SHORT.items())
        raise Permanent(f"the kind must be one of {known}, not {word!r}")
    return kind


def is_object_name(name: str) -> bool:
    """Whether an object of a cluster can have this name."""
    return _NAME.fullmatch(name) is not None
