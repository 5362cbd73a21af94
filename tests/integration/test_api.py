"""The API on a real API server: good objects are taken, bad ones refused at `kubectl apply` with a sentence."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from espalier_local.cluster import Cluster
from tests.support.controlplane import ROOT, ControlPlane

JOB: dict[str, Any] = {
    "apiVersion": "espalier.dev/v1alpha1",
    "kind": "GradingJob",
    "metadata": {"name": "class"},
    "spec": {
        "assignment": {"uri": "artifact://" + "a" * 64},
        "submissions": {"uri": "configmap://class/submissions.tar"},
        "models": {
            "code": {"template": {"models": [{"name": "m", "source": "random://tiny"}]}},
            "feedback": {"modelServer": "shared", "maxTokens": 64},
        },
    },
}
SERVER: dict[str, Any] = {
    "apiVersion": "espalier.dev/v1alpha1",
    "kind": "ModelServer",
    "metadata": {"name": "shared"},
    "spec": {"models": [{"name": "org/m", "source": "random://tiny"}]},
}
REMOVED = object()


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`document` with one field set, or removed."""
    made = copy.deepcopy(document)
    *parents, last = path.split(".")
    here = made
    for parent in parents:
        here = here.setdefault(parent, {})
    if value is REMOVED:
        here.pop(last, None)
    else:
        here[last] = value
    return made


@pytest.fixture(scope="module")
def plane(control_plane: Cluster) -> ControlPlane:
    made = ControlPlane(control_plane.kubeconfig, control_plane.assets)
    made.must("apply", "-f", str(ROOT / "crds"))
    made.must("wait", "--for=condition=Established", "crd/gradingjobs.espalier.dev", "crd/modelservers.espalier.dev")
    return made


def placed(document: dict[str, Any], namespace: str) -> dict[str, Any]:
    return changed(document, "metadata.namespace", namespace)


FULL = {
    "scale.points": 100,
    "execution": {"sandbox": "none", "kernelTimeoutSeconds": 10, "memory": "512Mi", "network": "none"},
    "workers": {
        "replicas": 3,
        "capacity": 8,
        "pod": {
            "nodeSelector": {"pool": "cpu"},
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "grading", "effect": "NoSchedule"}],
            "resources": {"cpu": "500m", "memory": "1Gi"},
            "labels": {"team": "a"},
            "annotations": {"note": "b"},
            "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
        },
    },
    "runPolicy": {
        "suspend": True, "priority": -5, "retries": 0, "taskTimeoutSeconds": 30, "ttlSecondsAfterFinished": 60,
    },
    "models.code": {
        "endpoint": {
            "url": "http://ollama.lab:11434",
            "model": "qwen3",
            "apiKeySecretRef": {"name": "k", "key": "api-key"},
            "caSecretRef": {"name": "k", "key": "ca.crt"},
        }
    },
    "models.fallback": [{"url": "https://other", "model": "m"}],
    "performance.targets": {"code": 1, "feedback": 1, "combined": 2},
    "assignment.sha256": "0" * 64,
}  # fmt: skip


@pytest.mark.parametrize("path", FULL)
def test_every_documented_field_is_accepted(plane: ControlPlane, namespace: str, path: str) -> None:
    answer = plane.apply(placed(changed(JOB, f"spec.{path}", FULL[path]), namespace))
    assert answer.code == 0, answer.text


def test_an_accepted_object_has_its_defaults(plane: ControlPlane, namespace: str) -> None:
    plane.apply(placed(JOB, namespace))
    spec = json.loads(plane.must("-n", namespace, "get", "gj", "class", "-o", "json"))["spec"]
    assert spec["scale"] == {"points": 37.5}
    assert spec["models"]["code"]["maxTokens"] == 800
    assert spec["models"]["code"]["template"]["queueLimit"] == 32
    assert spec["execution"]["sandbox"] == "bubblewrap"
    assert spec["runPolicy"]["taskTimeoutSeconds"] == 600


BAD_JOBS = {
    "an address of another kind": ("assignment.uri", "https://somewhere/bundle.tar", "espalier push PATH"),
    "an address that nobody printed": ("assignment.uri", "artifact://my-bundle", "espalier push PATH"),
    "a digest that is none": ("assignment.sha256", "abc", "64 lower-case hexadecimal digits"),
    "a model named twice": ("models.code.modelServer", "shared", "exactly one of modelServer, template or endpoint"),
    "a model not named": ("models.feedback.modelServer", REMOVED, "exactly one of modelServer, template or endpoint"),
    "a template without servers": ("models.code.template.replicas", 0, "set template.replicas to 1 or more"),
    "an endpoint with /v1": (
        "models.code", {"endpoint": {"url": "http://x/v1", "model": "m"}}, "write the endpoint's url without /v1",
    ),
    "an endpoint without a scheme": (
        "models.code", {"endpoint": {"url": "x:11434", "model": "m"}}, "starts with http:// or https://",
    ),
    "no submissions": ("submissions", REMOVED, "spec.submissions: Required value"),
    "no points": ("scale.points", 0, "spec.scale.points"),
    "an unknown sandbox": (
        "execution.sandbox", "docker", 'supported values: "bubblewrap", "container", "gvisor", "none"'
    ),
    "a memory of words": ("execution.memory", "one gig", "write a Kubernetes quantity such as 500m, 2 or 2Gi"),
    "a memory that starts no kernel": ("execution.memory", "16Mi", "must be between 128Mi"),
    "a memory that no machine has": ("execution.memory", "9999E", "must be between 128Mi"),
    "a model that the template lacks": ("models.code.model", "other", "model names none of template.models"),
    "a second name for an endpoint's model": (
        "models.code", {"endpoint": {"url": "http://x", "model": "m"}, "model": "other"}, "stands in endpoint.model",
    ),
    "a setting of the programs": (
        "workers.pod.env", [{"name": "ESPALIER_WORKER_ID", "value": "x"}], "choose another name",
    ),
    "a deadline of a day": ("runPolicy.taskTimeoutSeconds", 86400, "less than or equal to 3600"),
    "no worker": ("workers.replicas", 0, "greater than or equal to 1"),
    "a bad variable name": (
        "workers.pod.env", [{"name": "2FAST", "value": "x"}], "starts with no digit",
    ),
    "a field that does not exist": ("workers.replica", 2, 'unknown field "spec.workers.replica"'),
    "submissions on Macs": ("workers.placement", "mlx", 'unknown field "spec.workers.placement"'),
}  # fmt: skip


@pytest.mark.parametrize(
    ("document", "name", "longest"),
    [(JOB, "a" * 51, 50), (JOB, "week.1", 50), (SERVER, "a" * 60, 59)],
    ids=["a long job", "a job with a dot", "a long server"],
)
def test_a_name_that_its_pods_could_not_carry_is_refused(
    plane: ControlPlane, namespace: str, document: dict[str, Any], name: str, longest: int
) -> None:
    answer = plane.apply(placed(changed(document, "metadata.name", name), namespace))
    assert answer.code != 0
    assert f"metadata.name may have at most {longest} lower-case letters, digits and hyphens" in answer.text


@pytest.mark.parametrize("case", BAD_JOBS)
def test_a_bad_job_is_refused_with_what_to_change(plane: ControlPlane, namespace: str, case: str) -> None:
    path, value, sentence = BAD_JOBS[case]
    answer = plane.apply(placed(changed(JOB, f"spec.{path}", value), namespace))
    assert answer.code != 0
    assert sentence in answer.text


BAD_SERVERS = {
    "no model": ("models", [], "at least 1 items"),
    "the same name twice": (
        "models", [{"name": "m", "source": "a"}, {"name": "m", "source": "b"}], "each name may stand only once",
    ),
    "a negative number": ("replicas", -1, "greater than or equal to 0"),
    "another place": ("placement", "windows", 'supported values: "mlx", "linux"'),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SERVERS)
def test_a_bad_model_server_is_refused_with_what_to_change(plane: ControlPlane, namespace: str, case: str) -> None:
    path, value, sentence = BAD_SERVERS[case]
    answer = plane.apply(placed(changed(SERVER, f"spec.{path}", value), namespace))
    assert answer.code != 0
    assert sentence in answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("assignment", {"uri": "artifact://" + "b" * 64}),
        ("submissions", {"uri": "artifact://" + "b" * 64}),
        ("models", {"code": {"modelServer": "other"}}),
        ("scale", {"points": 40}),
        ("execution", {"kernelTimeoutSeconds": 61}),
        ("runPolicy.retries", 1),
        ("runPolicy.taskTimeoutSeconds", 60),
    ],
)
def test_what_decides_a_grade_cannot_change(plane: ControlPlane, namespace: str, field: str, value: Any) -> None:
    plane.apply(placed(JOB, namespace))
    answer = patch(plane, namespace, "gj/class", changed({}, f"spec.{field}", value))
    assert answer.code != 0
    assert f"spec.{field} cannot change after creation: apply a new" in answer.text


@pytest.mark.parametrize("policy", [{"suspend": True}, {"priority": 9}, {"ttlSecondsAfterFinished": 5}])
def test_how_a_job_runs_can_change_on_the_fly(plane: ControlPlane, namespace: str, policy: dict[str, Any]) -> None:
    plane.apply(placed(JOB, namespace))
    answer = patch(plane, namespace, "gj/class", {"spec": {"runPolicy": policy, "workers": {"replicas": 2}}})
    assert answer.code == 0, answer.text


@pytest.mark.parametrize("back", [{"cancel": False}, {"cancel": None}, None], ids=["false", "unset", "no policy"])
def test_a_cancelled_job_stays_cancelled(plane: ControlPlane, namespace: str, back: dict[str, Any] | None) -> None:
    plane.apply(placed(JOB, namespace))
    assert patch(plane, namespace, "gj/class", {"spec": {"runPolicy": {"cancel": True}}}).code == 0
    answer = patch(plane, namespace, "gj/class", {"spec": {"runPolicy": back}})
    assert answer.code != 0
    assert "runPolicy.cancel cannot be taken back" in answer.text


def test_a_model_servers_models_cannot_change_but_its_size_can(plane: ControlPlane, namespace: str) -> None:
    plane.apply(placed(SERVER, namespace))
    answer = patch(plane, namespace, "ms/shared", {"spec": {"models": [{"name": "n", "source": "random://tiny"}]}})
    assert "spec.models cannot change after creation" in answer.text
    plane.must("-n", namespace, "scale", "ms/shared", "--replicas=3")
    assert plane.must("-n", namespace, "get", "ms/shared", "-o", "jsonpath={.spec.replicas}") == "3"


def patch(plane: ControlPlane, namespace: str, name: str, change: dict[str, Any], *more: str) -> Any:
    return plane.kubectl("-n", namespace, "patch", name, "--type=merge", "-p", json.dumps(change), *more)


STATUS = {
    "phase": "Running",
    "submissions": {"total": 5, "graded": 3, "needsReview": 1},
    "scores": {"mean": 31.5},
    "performance": {"submissionsPerHour": 120.5},
    "estimatedSecondsLeft": 60,
    "conditions": [
        {
            "type": "Progressing", "status": "True", "reason": "Running", "message": "",
            "lastTransitionTime": "2026-01-05T12:00:00Z",
        }
    ],
}  # fmt: skip


def test_status_is_written_by_its_own_door_and_shown_in_columns(plane: ControlPlane, namespace: str) -> None:
    plane.apply(placed({**JOB, "status": STATUS}, namespace))
    assert "Running" not in plane.must("-n", namespace, "get", "gj")
    assert patch(plane, namespace, "gj/class", {"status": STATUS}, "--subresource=status").code == 0
    head, row = plane.must("-n", namespace, "get", "gradingjobs").splitlines()
    assert head.split() == ["NAME", "PHASE", "DONE", "REVIEW", "MEAN", "SUBM/H", "ETA", "AGE"]
    assert row.split()[:-1] == ["class", "Running", "3", "1", "31.5", "120.5", "60"]


def test_jobs_are_found_by_phase(plane: ControlPlane, namespace: str) -> None:
    for name, phase in (("one", "Running"), ("two", "Complete")):
        plane.apply(placed(changed(JOB, "metadata.name", name), namespace))
        patch(plane, namespace, f"gj/{name}", {"status": {"phase": phase}}, "--subresource=status")
    found = plane.must("-n", namespace, "get", "gj", "--field-selector=status.phase=Complete", "-o", "name")
    assert found.split() == ["gradingjob.espalier.dev/two"]


def test_conditions_are_merged_by_type(plane: ControlPlane, namespace: str) -> None:
    """Two conditions of one type would make every reader guess."""
    plane.apply(placed(JOB, namespace))
    twice = {**STATUS, "conditions": [STATUS["conditions"][0]] * 2}  # type: ignore[index]
    answer = patch(plane, namespace, "gj/class", {"status": twice}, "--subresource=status")
    assert answer.code != 0
    assert "Duplicate value" in answer.text


def test_one_category_lists_everything_of_ours(plane: ControlPlane, namespace: str) -> None:
    plane.apply(placed(JOB, namespace))
    plane.apply(placed(SERVER, namespace))
    found = plane.must("-n", namespace, "get", "espalier", "-o", "name").split()
    assert sorted(found) == ["gradingjob.espalier.dev/class", "modelserver.espalier.dev/shared"]
