"""What the operator writes into pods: contracts with worker, model server and node agent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from espalier_kube.cluster import Object
from espalier_operator import reading
from espalier_operator.plan.facts import WorkerFacts
from espalier_operator.plan.modelserver import children
from espalier_operator.plan.quantity import parse_bytes
from espalier_operator.plan.workers import worker_changes, worker_children, workers_hash
from espalier_worker.settings import WorkerSettings
from tests.support.operator_world import MODEL, grading_job, operator_settings

SETTINGS = operator_settings()
STAMP = {"uid": "u-1", "generation": 1, "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}


def stamped(obj: Object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], **STAMP}}


def worker_job(**spec: Any) -> Object:
    obj = stamped(grading_job(**spec))
    made = worker_children(
        obj, reading.job(obj), settings=SETTINGS, ca_pem="PEM", suspend=False, live=None
    )
    return next(o for o in made if o["kind"] == "Job")


def server_deployment(**spec: Any) -> Object:
    meta = {"name": "qwen", "namespace": "course"}
    obj = stamped({
        "apiVersion": "espalier.dev/v1alpha1", "kind": "ModelServer", "metadata": meta,
        "spec": {"models": [MODEL], **spec},
    })
    return next(o for o in children(obj, reading.model_server(obj), SETTINGS) if o["kind"] == "Deployment")


def environment(template: Object) -> dict[str, str]:
    entries = template["spec"]["containers"][0]["env"]
    return {e["name"]: e.get("value", e.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")) for e in entries}


@pytest.mark.parametrize("template", [worker_job()["spec"]["template"], server_deployment()["spec"]["template"]])
def test_pods_meet_the_restricted_standard(template: Object) -> None:
    spec = template["spec"]
    container = spec["containers"][0]["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["allowPrivilegeEscalation"] is False
    assert container["readOnlyRootFilesystem"] is True
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert spec["enableServiceLinks"] is spec["automountServiceAccountToken"] is False
    assert {"name": "tmp", "emptyDir": {}} in spec["volumes"]


def test_a_model_servers_grace_covers_its_farewell_and_its_drain() -> None:
    template = server_deployment()["spec"]["template"]
    farewell_s = template["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert farewell_s > 0
    left_s = template["spec"]["terminationGracePeriodSeconds"] - farewell_s
    assert left_s >= float(environment(template)["ESPALIER_MLX_DRAIN_S"]) + 5


def test_the_workers_environment_is_what_the_worker_reads() -> None:
    given = environment(worker_job()["spec"]["template"])
    prefix = "ESPALIER_WORKER_"
    read = WorkerSettings.model_validate({key.removeprefix(prefix).lower(): value for key, value in given.items()})
    assert str(read.job_uid) == "u-1"
    assert given[f"{prefix}HOST"] == "status.podIP"


def test_the_worker_job_replaces_lost_pods_and_ends_on_bad_settings() -> None:
    spec = worker_job(workers={"replicas": 3})["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [78]
    assert spec["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"] == [143]
    assert spec["podFailurePolicy"]["rules"][2]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert spec["template"]["spec"]["nodeSelector"] == {"espalier.dev/node-kind": "linux"}


def test_overrides_add_but_never_move_workers_off_linux() -> None:
    pod = {
        "nodeSelector": {"espalier.dev/node-kind": "mlx", "disk": "fast"}, "labels": {"team": "x"},
        "env": [{"name": "HTTP_PROXY", "value": "none"}], "resources": {"cpu": "2", "memory": "1Gi"},
        "tolerations": [{"key": "spot"}],
    }
    template = worker_job(workers={"pod": pod})["spec"]["template"]
    assert template["spec"]["nodeSelector"] == {"espalier.dev/node-kind": "linux", "disk": "fast"}
    assert template["metadata"]["labels"]["team"] == "x"
    assert environment(template)["HTTP_PROXY"] == "none"
    asked = template["spec"]["containers"][0]["resources"]
    assert asked == {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}


def live(**changes: Any) -> WorkerFacts:
    job = reading.job(stamped(grading_job()))
    values: dict[str, Any] = {
        "name": "week-1-worker", "uid": "j-1", "workers_hash": workers_hash(job.spec.workers), "suspended": False,
        "replicas": 1, **changes,
    }
    return WorkerFacts(**values)


CHANGES = {
    "as wished": (live(), False, [], []),
    "to be suspended": (live(), True, [{"spec": {"suspend": True}}], []),
    "another size": (
        live(replicas=2), False,
        [{"spec": {"suspend": False, "completions": 1, "parallelism": 1, "maxFailedIndexes": 1}}], [],
    ),
    "another template": (live(workers_hash="other"), False, [], ["j-1"]),
    "stopped early": (live(is_finished=True), False, [], ["j-1"]),
    "failed": (live(is_finished=True, failure="exit 78"), False, [], []),
    "finished and not needed": (live(is_finished=True), True, [], []),
}


@pytest.mark.parametrize("case", CHANGES)
def test_how_the_worker_job_follows(case: str) -> None:
    facts, suspend, patches, deleted = CHANGES[case]
    changes, deletions = worker_changes(reading.job(stamped(grading_job())), facts, suspend=suspend)
    assert [c.patch for c in changes] == patches
    assert [d.uid for d in deletions] == deleted


def test_a_model_server_is_one_process_per_mac() -> None:
    made = server_deployment(promptCacheBytes="2Mi", queueLimit=5)
    assert made["spec"]["strategy"] == {"type": "Recreate"}
    template = made["spec"]["template"]
    container = template["spec"]["containers"][0]
    assert container["resources"] == {"requests": {"espalier.dev/metal": "1"}, "limits": {"espalier.dev/metal": "1"}}
    assert template["spec"]["nodeSelector"] == {"espalier.dev/node-kind": "mlx"}
    tolerated = {t["key"]: t.get("tolerationSeconds") for t in template["spec"]["tolerations"]}
    assert tolerated == {
        "espalier.dev/mlx": None, "node.kubernetes.io/not-ready": 30, "node.kubernetes.io/unreachable": 30
    }
    given = environment(template)
    assert json.loads(given["ESPALIER_MLX_MODELS"]) == [MODEL]
    assert (given["ESPALIER_MLX_PROMPT_CACHE_BYTES"], given["ESPALIER_MLX_QUEUE_LIMIT"]) == (str(2 * 2**20), "5")
    assert (given["ESPALIER_MLX_HOST"], given["ESPALIER_MLX_NODE"]) == ("status.podIP", "spec.nodeName")


def test_a_linux_model_server_takes_no_metal() -> None:
    template = server_deployment(placement="linux")["spec"]["template"]
    assert "resources" not in template["spec"]["containers"][0]
    assert template["spec"]["nodeSelector"] == {"espalier.dev/node-kind": "linux"}


@pytest.mark.parametrize(("text", "value"), [("512Mi", 2**29), ("1.5Gi", 3 * 2**29), ("7", 7), ("2k", 2000)])
def test_quantities(text: str, value: int) -> None:
    assert parse_bytes(text) == value


def test_no_quantity_is_an_error() -> None:
    with pytest.raises(ValueError, match="no quantity"):
        parse_bytes("many")


def resources_of(**spec: Any) -> dict[str, dict[str, str]]:
    """Of a job's workers, on a platform that has defaults."""
    defaults = {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "4", "memory": "4Gi"}}
    settings = operator_settings(worker_resources=json.dumps(defaults))
    obj = stamped(grading_job(**spec))
    made = worker_children(obj, reading.job(obj), settings=settings, ca_pem="PEM", suspend=False, live=None)
    job = next(o for o in made if o["kind"] == "Job")
    found: dict[str, dict[str, str]] = job["spec"]["template"]["spec"]["containers"][0]["resources"]
    return found


def test_workers_have_the_platforms_requests_and_limits_unless_their_job_asks() -> None:
    assert resources_of()["requests"] == {"cpu": "500m", "memory": "512Mi"}
    asked = resources_of(workers={"pod": {"resources": {"memory": "2Gi"}}})
    assert asked == {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"cpu": "4", "memory": "2Gi"}}


def test_workers_are_probed_where_they_listen_and_spread_over_nodes() -> None:
    spec = worker_job()["spec"]["template"]["spec"]
    container = spec["containers"][0]
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    ports = {container[name]["httpGet"]["port"] for name in paths}
    assert ports == {int(environment({"spec": spec})["ESPALIER_WORKER_PORT"])}
    (spread,) = spec["topologySpreadConstraints"]
    labels = worker_job()["spec"]["template"]["metadata"]["labels"]
    assert spread["labelSelector"]["matchLabels"].items() <= labels.items()


def test_without_defaults_workers_have_none() -> None:
    assert "resources" not in worker_job()["spec"]["template"]["spec"]["containers"][0]
