"""The chart's environments on one small node: each file as it is, but for sizes and what only an owner knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from tests.support.charts import CHART

LARGE = ("staging", "prod")
"""Those that ask for more than a small node has."""
_PROGRAM = {"cpu": "600m", "memory": "512Mi"}
_WORKER = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


def file_of(environment: str) -> str:
    """Name of its values file in the chart."""
    return f"values-{environment}.yaml"


def values_of(environment: str) -> dict[str, Any]:
    """What the file says."""
    found: dict[str, Any] = yaml.safe_load((CHART / file_of(environment)).read_text())
    return found


def cut_down(environment: str, *, executors: str, database: str) -> dict[str, Any]:
    """What to lay over the environment's file here: images that are on the node, the lane's volume, which is fixed at
    installation, fewer and smaller pods where it needs that, and `database`, the address of its PostgreSQL."""
    own: dict[str, Any] = {
        "images": {"pullPolicy": "Never"},
        "coordinator": {"storage": {"size": "2Gi", "storageClass": "espalier-local"}},
        "networkPolicies": {"database": {"peers": [{"cidr": f"{database}/32"}]}},
        "pools": [{**pool, "executors": executors} for pool in values_of(environment)["pools"]],
    }
    if environment in LARGE:
        own["operator"] = {"resources": _PROGRAM}
        own["coordinator"]["resources"] = _PROGRAM
        own["pools"] = [_small(pool) for pool in own["pools"]]
    return own


def _small(pool: Mapping[str, Any]) -> dict[str, Any]:
    return {**pool, "resources": _WORKER, "autoscaling": {**pool["autoscaling"], "min": 1, "max": 2}}
