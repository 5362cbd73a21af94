"""The examples of benchmarks as a person applies them, whatever the nodes are made of."""

from __future__ import annotations

from typing import Any

import yaml

from espalier_kube.cluster import BENCHMARK_JOB, Kind, Object
from tests.support.controlplane import ROOT
from tests.support.platform import Platform
from tests.support.waiting import has, until

EXAMPLES = ROOT / "examples/benchmark"
SECONDS = 120


def example(name: str, **replaced: str) -> str:
    """The file, with literal pieces replaced."""
    text = (EXAMPLES / f"{name}.yaml").read_text()
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return text


async def apply(platform: Platform, namespace: str, text: str) -> None:
    """Every document of it, in that namespace."""
    for document in yaml.safe_load_all(text):
        document["metadata"]["namespace"] = namespace
        await platform.cluster.create(document)


async def complete(platform: Platform, namespace: str, name: str, kind: Kind = BENCHMARK_JOB) -> Object:
    """The job once it is Complete."""
    return await until(platform.cluster, kind, namespace, name, has("Complete"), timeout_s=SECONDS, what="Complete")


def is_answered(target: dict[str, Any]) -> bool:
    """Whether every request was; random weights may end an answer before its first letter."""
    return {error["type"] for error in target.get("errors", ())} <= {"empty"} and target["succeeded"] > 0
