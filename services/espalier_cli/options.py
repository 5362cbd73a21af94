"""Options that several commands share, and how an object is named on the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from espalier_kit.errors import Permanent

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
_KINDS = frozenset({"gj", "gradingjob", "gradingjobs", "gradingjob.espalier.dev", "gradingjobs.espalier.dev"})


@dataclass(frozen=True, slots=True)
class Where:
    """Which cluster, and where in it."""

    kubeconfig: Path | None
    namespace: str
    system_namespace: str = SYSTEM_NAMESPACE


def job_name(reference: str) -> str:
    """The name in `gj/NAME`, `gradingjob/NAME` or `NAME`. Raises `Permanent`."""
    kind, _, name = reference.rpartition("/")
    if kind and kind.lower() not in _KINDS:
        raise Permanent(f"{reference!r}: the kind must be gj (GradingJob), not {kind!r}")
    if not _NAME.fullmatch(name):
        raise Permanent(f"{name!r} is no object name: use lower-case letters, digits, dots and dashes")
    return name
