"""A real control plane as a person uses it, through kubectl and helm; for chart tests also one to start and stop."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from espalier_local.api import clean_environment
from espalier_local.assets import Assets, ensure
from espalier_local.cluster import down, up
from espalier_local.places import Places, places_from
from espalier_local.progress import Silent

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said; `text` is both of its streams."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """How tests talk to it: the same kubectl and helm that a person would use."""

    kubeconfig: Path
    assets: Assets

    def kubectl(self, *arguments: str, given: str | None = None) -> Answer:
        """Run kubectl; `given` is its standard input."""
        return _run([str(self.assets["kubectl"]), f"--kubeconfig={self.kubeconfig}", *arguments], given)

    def helm(self, *arguments: str) -> Answer:
        """Run helm against this API server."""
        return _run([str(self.assets["helm"]), f"--kubeconfig={self.kubeconfig}", *arguments], None)

    def must(self, *arguments: str, given: str | None = None) -> str:
        """kubectl that has to succeed; its output."""
        answer = self.kubectl(*arguments, given=given)
        assert answer.code == 0, answer.text
        return answer.text

    def apply(self, document: Mapping[str, Any]) -> Answer:
        """`kubectl apply` of one object."""
        return self.kubectl("apply", "-f", "-", given=yaml.safe_dump(dict(document)))


def places() -> Places:
    """The cache of this user; binaries are shared between runs."""
    return places_from(os.environ)


def binaries() -> Assets:
    """helm and kubectl, built the first time."""
    return ensure(places(), Silent())


@contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """Up before, down after, under a name of its own."""
    name = f"run-{os.getpid()}-{uuid.uuid4().hex[:4]}"
    cluster = up(name, places(), Silent(), profiles=())
    try:
        yield ControlPlane(cluster.kubeconfig, cluster.assets)
    finally:
        down(name, places(), Silent())


def _run(command: list[str], given: str | None) -> Answer:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        env=clean_environment(os.environ),
    )  # fmt: skip
    return Answer(done.returncode, done.stdout + done.stderr)
