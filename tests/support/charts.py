"""Rendering the charts with the project's own Helm."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.controlplane import ROOT, Answer, binaries

CHART = ROOT / "charts/espalier"
CRDS = ROOT / "charts/espalier-crds"
LOCAL = ("-f", str(CHART / "values-local.yaml"), "--set", "coordinator.address=127.9.1.10")
EVERY = ("-f", str(CHART / "lint-values.yaml"))
VARIANTS: dict[str, tuple[str, ...]] = {"default": (), "local": LOCAL, "every option": EVERY}
NAMESPACE = "espalier-system"


def helm(*arguments: str) -> Answer:
    """Run helm without a cluster."""
    done = subprocess.run(
        [str(binaries()["helm"]), *arguments], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    return Answer(done.returncode, done.stdout + done.stderr)


@cache
def rendered(*options: str, chart: Path = CHART) -> tuple[dict[str, Any], ...]:
    """All objects of a chart."""
    answer = helm("template", "espalier", str(chart), "--namespace", NAMESPACE, *options)
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
