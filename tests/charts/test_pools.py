"""Shared worker pools as the chart makes them: one Deployment each, and what scales it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from espalier_kit.digest import sha256
from espalier_kit.settings import load
from espalier_worker.settings import WorkerSettings
from tests.support.charts import CHART, LOCAL, find, helm, rendered

NAME = "espalier-pool-gpu"
METRICS_API = "v1beta1.external.metrics.k8s.io"
PROD = ("-f", str(CHART / "values-prod.yaml"))


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Renders the chart with one pool `gpu` of these options, by defaults of which some are changed as well."""

    def render(*more: str, defaults: dict[str, Any] | None = None, **options: Any) -> tuple[dict[str, Any], ...]:
        text = yaml.safe_dump({"pools": [{"name": "gpu", **options}], "poolDefaults": defaults or {}})
        values = tmp_path / f"{sha256(text.encode())}.yaml"  # `rendered` remembers by name
        values.write_text(text)
        return rendered(*more, "-f", str(values))

    return render


def kinds(objects: tuple[dict[str, Any], ...]) -> set[str]:
    """Kinds of what belongs to the pool."""
    return {o["kind"] for o in objects if o["metadata"]["name"] == NAME}


def scaling(mode: str, **more: Any) -> dict[str, Any]:
    return {"mode": mode, "min": 5, "max": 50, **more}


ALWAYS = {"Deployment", "ServiceAccount", "PodDisruptionBudget"}


@pytest.mark.parametrize(("mode", "scalers"), [
    ("off", set()), ("external-metrics", {"HorizontalPodAutoscaler"}), ("cpu", {"HorizontalPodAutoscaler"}),
    ("keda", {"ScaledObject", "TriggerAuthentication"}),
])
def test_who_scales_a_pool_alone_says_how_many_workers_it_has(made: Any, mode: str, scalers: set[str]) -> None:
    """`replicas` in the Deployment would set an autoscaler back with every upgrade."""
    objects = made(replicas=7, autoscaling=scaling(mode))
    assert kinds(objects) == ALWAYS | scalers
    spec = find(objects, "Deployment", NAME)["spec"]
    assert spec.get("replicas") == (7 if mode == "off" else None)
    assert any(o["metadata"]["name"] == METRICS_API for o in objects) is (mode == "external-metrics")


def test_the_autoscaler_wants_so_much_pending_work_for_each_worker(made: Any) -> None:
    objects = made(autoscaling=scaling("external-metrics", targetPerWorker=32))
    spec = find(objects, "HorizontalPodAutoscaler", NAME)["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (5, 50)
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}
    (metric,) = spec["metrics"]
    assert metric["external"] == {
        "metric": {"name": "espalier_pending_work_units", "selector": {"matchLabels": {"pool": "gpu"}}},
        "target": {"type": "AverageValue", "averageValue": "32"},
    }


def test_the_autoscaler_on_cpu_wants_eighty_percent_unless_told_otherwise(made: Any) -> None:
    spec = find(made(autoscaling=scaling("cpu")), "HorizontalPodAutoscaler", NAME)["spec"]
    target = {"type": "Utilization", "averageUtilization": 80}
    assert spec["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


def test_keda_asks_the_coordinator_over_tls_for_this_pool(made: Any) -> None:
    objects = made(autoscaling=scaling("keda", targetPerWorker=32))
    spec = find(objects, "ScaledObject", NAME)["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"], spec["scaleTargetRef"]["name"]) == (5, 50, NAME)
    (trigger,) = spec["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("external-push", "AverageValue")
    assert trigger["metadata"] == {
        "scalerAddress": "espalier-coordinator.espalier-system.svc:50051", "enableTLS": "true", "pool": "gpu",
        "targetPerWorker": "32",
    }
    authentication = find(objects, "TriggerAuthentication", trigger["authenticationRef"]["name"])["spec"]
    ca = {"parameter": "caCert", "name": "espalier-coordinator", "key": "ca.crt"}
    assert authentication == {"configMapTargetRef": [ca]}


def worker(objects: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """The pod's specification, and its worker's environment."""
    spec = find(objects, "Deployment", NAME)["spec"]["template"]["spec"]
    fields = {"status.podIP": "10.1.2.3", "metadata.name": "pod-1"}
    return spec, {
        e["name"]: e.get("value", fields.get(e.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath"), ""))
        for e in spec["containers"][0]["env"]
    }


def test_a_worker_accepts_the_settings_that_the_chart_gives(made: Any) -> None:
    objects = made(capacity=8, prefetch=0, drainSeconds=40, tags=["gpu", "fast"], types=["grading.execute"])
    spec, environment = worker(objects)
    ours = {key: value for key, value in environment.items() if key.startswith("ESPALIER_")}
    settings = load(WorkerSettings, "worker", ours)
    assert (settings.pool, settings.capacity, settings.prefetch, settings.drain_s) == ("gpu", 8, 0, 40.0)
    assert (settings.tags, settings.types, settings.job_uid) == ("gpu,fast", "grading.execute", "")
    assert spec["terminationGracePeriodSeconds"] == 50, "the drain, and time for the last results"
    assert spec["serviceAccountName"] == NAME


def test_a_worker_finds_its_token_and_the_authority_where_it_is_told(made: Any) -> None:
    spec, environment = worker(made())
    (place,) = [m["mountPath"] for m in spec["containers"][0]["volumeMounts"] if m["name"] == "credentials"]
    (volume,) = [v for v in spec["volumes"] if v["name"] == "credentials"]
    token, authority = (next(iter(source.values())) for source in volume["projected"]["sources"])
    assert environment["ESPALIER_WORKER_TOKEN_FILE"] == f"{place}/{token['path']}"
    assert [f"{place}/{item['path']}" for item in authority["items"]] == [environment["ESPALIER_WORKER_CA_FILE"]]


def test_what_a_pool_leaves_out_is_as_in_the_defaults_and_zero_is_not_left_out(made: Any) -> None:
    amounts = {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "4", "memory": "8Gi"}}
    objects = made(
        defaults={"capacity": 8, "prefetch": 3, "resources": amounts, "nodeSelector": {"disk": "fast"}},
        prefetch=0, replicas=0, resources={"limits": {"memory": "16Gi"}},
    )  # fmt: skip
    spec, environment = worker(objects)
    assert (environment["ESPALIER_WORKER_CAPACITY"], environment["ESPALIER_WORKER_PREFETCH"]) == ("8", "0")
    assert spec["containers"][0]["resources"] == {
        "requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "4", "memory": "16Gi"},
    }
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "disk": "fast"}
    assert find(objects, "Deployment", NAME)["spec"]["replicas"] == 0


def test_the_coordinator_and_the_operator_know_the_pool_and_its_account(made: Any) -> None:
    objects = made()

    def setting(kind: str, word: str) -> str:
        spec = find(objects, kind, f"espalier-{word}")["spec"]["template"]["spec"]
        (found,) = [e for e in spec["containers"][0]["env"] if e["name"] == f"ESPALIER_{word.upper()}_POOLS"]
        return str(found["value"])

    account = find(objects, "ServiceAccount", NAME)["metadata"]
    user = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    assert setting("StatefulSet", "coordinator") == f"{user}=gpu"
    assert setting("Deployment", "operator") == "gpu"


def test_a_pools_own_executors_lie_where_python_finds_them_and_what_they_offer(made: Any) -> None:
    spec, environment = worker(made(executors="my-executors"))
    (mount,) = [m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "executors"]
    assert mount["mountPath"] == environment["PYTHONPATH"]
    (volume,) = [v for v in spec["volumes"] if v["name"] == "executors"]
    sources = [source["configMap"] for source in volume["projected"]["sources"]]
    assert {source["name"] for source in sources} == {"my-executors"}
    assert sources[1]["items"] == [{"key": "entry_points.txt", "path": "executors-0.dist-info/entry_points.txt"}]


def test_the_metrics_api_goes_to_the_coordinator_or_to_its_pinned_address(made: Any) -> None:
    by_service = made(autoscaling=scaling("external-metrics"))
    service = find(by_service, "Service", "espalier-scaling")["spec"]
    assert service["selector"] == {"app.kubernetes.io/name": "espalier", "app.kubernetes.io/component": "coordinator"}
    api = find(by_service, "APIService", METRICS_API)["spec"]
    assert api["service"] == {"name": "espalier-scaling", "namespace": "espalier-system", "port": 8443}
    assert "insecureSkipTLSVerify" not in api
    pinned = find(made(*LOCAL, autoscaling=scaling("external-metrics")), "Service", "espalier-scaling")["spec"]
    assert (pinned["type"], pinned["externalName"]) == ("ExternalName", "127.9.1.10")
    assert "selector" not in pinned


def test_production_has_the_numbers_that_were_asked_for() -> None:
    values = yaml.safe_load((CHART / "values-prod.yaml").read_text())
    (pool,) = values["pools"]
    objects = rendered(*PROD)
    name = f"espalier-pool-{pool['name']}"
    (container,) = find(objects, "Deployment", name)["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "4", "memory": "8Gi"},
    }
    assert {"name": "ESPALIER_WORKER_CAPACITY", "value": "8"} in container["env"]
    spec = find(objects, "HorizontalPodAutoscaler", name)["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (5, 50)
    assert pool["replicas"] == 10, "where mode is off"
    assert pool["autoscaling"]["cpuPercent"] == 80, "where mode is cpu"


@pytest.mark.parametrize(("options", "complaint"), [
    (["pools[0].name=gpu", "pools[1].name=gpu"], "pools: two are named gpu: give each a name of its own"),
    (["pools[0].name=gpu", "pools[0].autoscaling.min=9", "pools[0].autoscaling.max=3"],
     "pool gpu: autoscaling.min is 9 and max is 3: min must not be the larger one"),
    (["pools[0].name=GPU"], "/pools/0/name"),
    (["pools[0].name=gpu", "pools[0].replica=3"], "additional properties 'replica' not allowed"),
    (["pools[0].name=gpu", "pools[0].autoscaling.mode=magic"], "/pools/0/autoscaling/mode"),
    (["pools[0].replicas=3"], "/pools/0"),
], ids=["twice", "bounds", "name", "unknown option", "mode", "no name"])
def test_a_mistake_is_refused_with_its_place(options: list[str], complaint: str) -> None:
    answer = helm("template", "espalier", str(CHART), *(f"--set={option}" for option in options))
    assert answer.code != 0
    assert complaint in answer.text
