"""The charts on a real API server: installed, upgraded, uninstalled; the access they give and refuse."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

import pytest

from espalier_operator.plan.policies import job_policies, parse_templates
from tests.support.charts import CHART, CRDS, ENVIRONMENTS, LOCAL, NAMESPACE, PREVIOUS, VARIANTS
from tests.support.controlplane import ControlPlane, control_plane
from tests.support.jobs import grading_job

COURSE = "course"
SAME_VOLUME = ("--set", "coordinator.storage.size=2Gi", "--set", "coordinator.storage.storageClass=espalier-local")
"""As in values-local.yaml: the volume's claim cannot change afterwards."""
DIGEST = f"artifact://{'a' * 64}"
OPTIONS = (*LOCAL, "--set", f"jobs.namespaces={{{COURSE}}}", "--set", "nodes.addresses={127.9.0.0/16}")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with control_plane() as made:
        for name in (NAMESPACE, COURSE):
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            metadata = {"name": name, "labels": labels}
            assert made.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}).code == 0
        for release, options in (("espalier-crds", ()), ("espalier", SAME_VOLUME)):
            before = PREVIOUS / f"{release}-0.1.0.tgz"
            answer = made.helm("install", release, str(before), "--namespace", NAMESPACE, *options)
            assert answer.code == 0, answer.text
        assert made.apply(grading_job("old", COURSE, assignment=DIGEST, submissions=DIGEST)).code == 0
        for release, new, options in (("espalier-crds", CRDS, ()), ("espalier", CHART, OPTIONS)):
            answer = made.helm("upgrade", release, str(new), "--namespace", NAMESPACE, *options)
            assert answer.code == 0, answer.text
            assert "would violate PodSecurity" not in answer.text
        yield made


def test_the_release_came_from_the_version_before_and_kept_its_objects(plane: ControlPlane) -> None:
    """Every other test here looks at what the upgrade made of it; test_upgrade of two lanes has a job that runs."""
    releases = {r["name"]: r for r in json.loads(plane.helm("list", "-n", NAMESPACE, "-o", "json").text)}
    assert {name: r["revision"] for name, r in releases.items()} == {"espalier": "2", "espalier-crds": "2"}
    old = json.loads(plane.must("-n", COURSE, "get", "gradingjob", "old", "-o", "json"))
    assert old["metadata"]["generation"] == 1
    assert plane.apply(grading_job("old", COURSE, assignment=DIGEST, submissions=DIGEST)).code == 0


def test_an_installed_release_can_be_upgraded_with_the_same_values(plane: ControlPlane) -> None:
    answer = plane.helm("upgrade", "espalier", str(CHART), "--namespace", NAMESPACE, *OPTIONS)
    assert answer.code == 0, answer.text


@pytest.mark.parametrize("workload", ["deployment/espalier-operator", "statefulset/espalier-coordinator"])
def test_pod_security_admits_the_pods(plane: ControlPlane, workload: str) -> None:
    """The admission plugin itself judges a pod made from the template."""
    template = json.loads(plane.must("-n", NAMESPACE, "get", workload, "-o", "json"))["spec"]["template"]
    spec = {**template["spec"], "volumes": [*template["spec"]["volumes"], {"name": "data", "emptyDir": {}}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": NAMESPACE}, "spec": spec}
    answer = plane.kubectl("create", "--dry-run=server", "-f", "-", given=json.dumps(pod))
    assert answer.code == 0, answer.text


def may(plane: ControlPlane, account: str, verb: str, what: str, namespace: str = COURSE) -> bool:
    """`kubectl auth can-i` as a service account; `what` is a resource, or resource/subresource."""
    resource, _, subresource = what.partition("/")
    question = ["auth", "can-i", verb, resource, f"--subresource={subresource}", "-n", namespace]
    return plane.kubectl(*question, f"--as=system:serviceaccount:{account}").code == 0


OPERATOR = f"{NAMESPACE}:espalier-operator"
COORDINATOR = f"{NAMESPACE}:espalier-coordinator"
SUBMITTER = f"{COURSE}:espalier-submitter"


@pytest.mark.parametrize(
    ("account", "question", "expected"),
    [
        (OPERATOR, ("patch", "gradingjobs/status"), True),
        (OPERATOR, ("create", "modelservers"), True),
        (OPERATOR, ("create", "jobs.batch"), True),
        (OPERATOR, ("list", "secrets"), False),
        (OPERATOR, ("create", "serviceaccounts/token"), False),
        (OPERATOR, ("create", "pods"), False),
        (OPERATOR, ("create", "rolebindings"), False),
        (COORDINATOR, ("create", "tokenreviews"), True),
        (COORDINATOR, ("get", "secrets"), False),
        (COORDINATOR, ("get", "gradingjobs"), False),
        (SUBMITTER, ("create", "gradingjobs"), True),
        (SUBMITTER, ("get", "pods/log"), True),
        (SUBMITTER, ("get", "secrets"), False),
        (SUBMITTER, ("patch", "gradingjobs/status"), False),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) if isinstance(value, tuple) else "",
)
def test_access_is_what_the_work_needs(
    plane: ControlPlane, account: str, question: tuple[str, ...], expected: bool
) -> None:
    assert may(plane, account, *question) is expected


def test_the_operator_has_its_lease_only_in_its_own_namespace(plane: ControlPlane) -> None:
    assert may(plane, OPERATOR, "update", "leases", namespace=NAMESPACE)
    assert not may(plane, OPERATOR, "update", "leases", namespace="kube-system")


def test_a_submitter_gets_a_token_for_the_coordinator_of_its_own_account_only(plane: ControlPlane) -> None:
    asked = ("create", "token", "--as", f"system:serviceaccount:{SUBMITTER}", "--audience=espalier-coordinator")
    assert plane.kubectl("-n", COURSE, *asked, "espalier-submitter").code == 0
    assert "cannot create resource" in plane.kubectl("-n", COURSE, *asked, "default").text


def test_the_operators_policies_are_accepted_as_it_writes_them(plane: ControlPlane) -> None:
    """Those of job namespaces exist only as text in a ConfigMap: the API server judges each as the operator would."""
    text = json.loads(plane.must("-n", NAMESPACE, "get", "configmap", "espalier-job-policies", "-o", "json"))["data"]
    made = job_policies(COURSE, parse_templates(text["policies.yaml"]))
    assert "espalier-default-deny" in {policy["metadata"]["name"] for policy in made}
    for policy in made:
        written = ("apply", "--server-side", "--dry-run=server", "--field-manager=espalier", "-f", "-")
        answer = plane.kubectl(*written, f"--as=system:serviceaccount:{OPERATOR}", given=json.dumps(policy))
        assert answer.code == 0, answer.text


def test_uninstalling_keeps_the_kinds_and_every_object(plane: ControlPlane) -> None:
    server = {
        "apiVersion": "espalier.dev/v1alpha1", "kind": "ModelServer",
        "metadata": {"name": "kept", "namespace": COURSE},
        "spec": {"models": [{"name": "m", "source": "random://tiny"}]},
    }  # fmt: skip
    assert plane.apply(server).code == 0
    answer = plane.helm("uninstall", "espalier-crds", "--namespace", NAMESPACE)
    assert answer.code == 0, answer.text
    assert "kept" in plane.must("-n", COURSE, "get", "modelservers", "-o", "name")
    again = plane.helm("install", "espalier-crds", str(CRDS), "--namespace", NAMESPACE)
    assert again.code == 0, again.text


def create_secret() -> list[str]:
    """The how-to page's command."""
    page = (CHART.parents[1] / "docs/how-to/install-on-a-cluster.md").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^kubectl (create secret .*)$", page, flags=re.M)
    return shlex.split(line)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_environment_is_admitted(plane: ControlPlane, environment: str) -> None:
    """Its objects are accepted and the controllers may make its pods, under Pod Security `restricted`."""
    assert plane.helm("uninstall", "espalier", "--namespace", NAMESPACE, "--wait").code == 0
    plane.must("-n", NAMESPACE, "delete", "persistentvolumeclaims", "--all")
    answer = plane.helm("install", "espalier", str(CHART), "--namespace", NAMESPACE, *VARIANTS[environment])
    assert answer.code == 0, answer.text
    assert "networkPolicies.apiServer.cidrs is every address" in answer.text
    needs_database = "networkPolicies.database.peers is empty" in answer.text
    assert needs_database is (environment != "dev"), "the notes say what is still missing"
    assert ("Secret espalier-database has no key url" in answer.text) is needs_database
    if needs_database:
        assert plane.kubectl(*create_secret()).code == 0
        answer = plane.helm("upgrade", "espalier", str(CHART), "--namespace", NAMESPACE, *VARIANTS[environment])
        assert "networkPolicies.database.peers is empty" in answer.text
        assert "Secret espalier-database" not in answer.text
        plane.must("-n", NAMESPACE, "delete", "secret", "espalier-database")
    wished = {"espalier-operator", "espalier-coordinator", "espalier-pool-shared"}
    for workload in (f"deployment/{name}" for name in wished - {"espalier-coordinator"}):
        plane.must("-n", NAMESPACE, "wait", workload, "--for=jsonpath={.status.unavailableReplicas}", "--timeout=60s")
    plane.must("-n", NAMESPACE, "wait", "pod/espalier-coordinator-0", "--for=create", "--timeout=60s")
    pods = plane.must("-n", NAMESPACE, "get", "pods", "-o", "name")
    assert all(f"pod/{name}-" in pods for name in wished), pods
