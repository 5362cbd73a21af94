"""Rendering the charts with the project's own Helm, 4 and 3."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from espalier_local.assets import HELM_3, ensure
from espalier_local.progress import Silent
from tests.support.controlplane import ROOT, Answer, binaries, places

CHART = ROOT / "charts/espalier"
CRDS = ROOT / "charts/espalier-crds"
LOCAL = ("-f", str(CHART / "values-local.yaml"), "--set", "coordinator.address=127.9.1.10")
CONTAINER = ("-f", str(CHART / "values-local.yaml"), "-f", str(CHART / "values-local-container.yaml"))
EVERY = ("-f", str(CHART / "lint-values.yaml"))
ENVIRONMENTS = ("dev", "staging", "prod")
VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (), "local": LOCAL, "container": CONTAINER, "every option": EVERY,
    **{name: ("-f", str(CHART / f"values-{name}.yaml")) for name in ENVIRONMENTS},
}  # fmt: skip
NAMESPACE = "espalier-system"
PREVIOUS = ROOT / "tests/charts/previous"
"""The charts of the version before this one, as they were packaged then."""
HELMS = ("helm", "helm3")
VERSIONS = ("--kube-version=1.36.0", "--api-versions=keda.sh/v1alpha1")
"""Rendering asks no cluster: Helm would assume the one that it was built with."""


@cache
def program(name: str) -> Path:
    """helm, or helm3; built the first time."""
    return binaries()[name] if name == "helm" else ensure(places(), Silent(), families=(HELM_3,))[name]


def helm(*arguments: str, by: str = "helm") -> Answer:
    """Run helm without a cluster."""
    done = subprocess.run([str(program(by)), *arguments], capture_output=True, text=True, timeout=60, check=False)
    return Answer(done.returncode, done.stdout + done.stderr)


@cache
def rendered(*options: str, chart: Path = CHART, by: str = "helm") -> tuple[dict[str, Any], ...]:
    """All objects of a chart."""
    answer = helm("template", "espalier", str(chart), "--namespace", NAMESPACE, *VERSIONS, *options, by=by)
    assert answer.code == 0, answer.text
    return tuple(document for document in yaml.safe_load_all(answer.text) if document)


def find(objects: tuple[dict[str, Any], ...], kind: str, name: str) -> dict[str, Any]:
    """The one object of that kind and name."""
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)
    return found


def pods(objects: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod template of everything that makes pods."""
    for made in objects:
        if made["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job"}:
            yield made["metadata"]["name"], made["spec"]["template"]
        elif made["kind"] == "Pod":
            yield made["metadata"]["name"], made
