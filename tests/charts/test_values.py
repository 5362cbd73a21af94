"""Values: mistakes are refused with their place, the lint file sets every option, each environment's file renders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from espalier_api.chart_files import values_schema
from espalier_api.chart_values import Values
from tests.support.charts import CHART, HELMS, VARIANTS, find, helm, rendered


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("replicas=3", "additional properties 'replicas' not allowed"),
        ("operator.replica=3", "additional properties 'replica' not allowed"),
        ("coordinator.storage.sise=3Gi", "additional properties 'sise' not allowed"),
        ("operator.port=0", "/operator/port"),
        ("images.pullPolicy=Sometimes", "/images/pullPolicy"),
        ("coordinator.address=localhost", "/coordinator/address"),
        ("nodes.addresses={everywhere}", "/nodes/addresses/0"),
    ],
)
@pytest.mark.parametrize("by", HELMS)
def test_a_mistake_in_the_values_is_refused_with_its_place(option: str, complaint: str, by: str) -> None:
    answer = helm("template", "espalier", str(CHART), "--set", option, by=by)
    assert answer.code != 0
    assert complaint in answer.text


def test_the_lint_values_set_every_option() -> None:
    """Every leaf of the schema, those of list items included: `helm lint` and the render tests see all of them."""
    every = yaml.safe_load((CHART / "lint-values.yaml").read_text())
    schema = values_schema()
    del schema["properties"]["global"]
    assert sorted(set(leaves(schema)) - set(options(every, schema))) == []


def test_production_starts_as_the_job_system_it_comes_from_does() -> None:
    """Its documented numbers: ten workers of eight tasks, 2 CPU and 4 Gi each, 4 and 8 at most, 5 to 50 of them."""
    found = rendered(*VARIANTS["prod"])
    spec = find(found, "Deployment", "espalier-pool-shared")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "4", "memory": "8Gi"},
    }  # fmt: skip
    assert {"name": "ESPALIER_WORKER_CAPACITY", "value": "8"} in container["env"]
    assert "replicas" not in spec, "the autoscaler's to set"
    scaler = find(found, "HorizontalPodAutoscaler", "espalier-pool-shared")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (5, 50)
    values = yaml.safe_load((CHART / "values-prod.yaml").read_text())["pools"][0]
    assert (values["replicas"], values["autoscaling"]["cpuPercent"]) == (10, 80)


def test_the_defaults_are_the_types_defaults() -> None:
    assert yaml.safe_load((CHART / "values.yaml").read_text()) == Values().wire()


def leaves(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Paths of all options; `[]` stands for a list's items."""
    if "properties" in schema:
        for key, child in schema["properties"].items():
            yield from leaves(child, f"{path}.{key}")
    elif "items" in schema:
        yield from leaves(schema["items"], f"{path}[]")
    else:
        yield path


def options(value: Any, schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Those of them that the values set."""
    if "properties" in schema:
        for key, child in value.items():
            yield from options(child, schema["properties"][key], f"{path}.{key}")
    elif "items" in schema:
        for item in value:
            yield from options(item, schema["items"], f"{path}[]")
    else:
        yield path
