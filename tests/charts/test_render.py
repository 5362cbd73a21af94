"""What the charts say under every set of values: restricted pods, known settings, least privilege, refused mistakes."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

from espalier_api.schema import KINDS
from espalier_kit.settings import Settings, load
from tests.support.charts import CHART, CRDS, EVERY, HELMS, LOCAL, VARIANTS, find, helm, pods, rendered

FIELD_VALUES = {
    "status.podIP": "127.9.1.10", "metadata.namespace": "espalier-system", "metadata.name": "espalier-x-0",
    "url": "postgresql://user:password@postgres.example/espalier",
}
OVER_HTTP = {
    "startupProbe": "HTTP http /healthz", "readinessProbe": "HTTP http /readyz",
    "livenessProbe": "HTTP http /healthz",
}  # fmt: skip
BY_GRPC = {
    "startupProbe": "HTTPS https /healthz", "readinessProbe": "gRPC grpc-health",
    "livenessProbe": "HTTPS https /healthz",
}  # fmt: skip
PROBES: dict[str, dict[str, str]] = {
    "operator": OVER_HTTP, "coordinator": BY_GRPC, "worker": OVER_HTTP, "canary": {},
}  # fmt: skip
"""How a kubelet asks each program: workers of a coordinator whose gRPC does not answer have nobody to talk to."""
API, OURS = ("token", None, 3607), ("token", "espalier-coordinator", 3607)
TOKENS = {
    "operator": [API, OURS], "coordinator": [API], "worker": [("token", "espalier-coordinator", 3600)],
    "canary": [OURS],
}  # fmt: skip
"""Path, audience and seconds of the tokens that a pod has; without an audience it is one for the API server."""
PROGRAMS = {"operator": "Deployment", "coordinator": "StatefulSet"}


@pytest.mark.parametrize("by", HELMS)
@pytest.mark.parametrize("chart", [CHART, CRDS], ids=lambda path: path.name)
def test_helm_lint_is_silent(chart: Any, by: str) -> None:
    options = EVERY if chart == CHART else ()
    answer = helm("lint", "--strict", str(chart), *options, by=by)
    assert answer.code == 0, answer.text
    assert "[WARNING]" not in answer.text


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_3_renders_the_same(variant: str) -> None:
    """What the other tests find in Helm 4's objects so holds for Helm 3's."""
    assert rendered(*VARIANTS[variant], by="helm3") == rendered(*VARIANTS[variant])


def test_helm_3_renders_the_same_kinds() -> None:
    assert rendered(chart=CRDS, by="helm3") == rendered(chart=CRDS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_is_restricted(variant: str) -> None:
    """The fields of Pod Security `restricted`, asserted one by one; test_install asks the API server too."""
    found = dict(pods(rendered(*VARIANTS[variant])))
    assert {"espalier-operator", "espalier-coordinator"} <= set(found)
    for template in found.values():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all(set(volume) & {"projected", "secret", "emptyDir", "configMap"} for volume in spec["volumes"])
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            for amounts in (container["resources"]["requests"], container["resources"]["limits"]):
                assert set(amounts) == {"cpu", "memory"}
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert spec.get("restartPolicy") == "Never" or spec["topologySpreadConstraints"]
        assert spec["terminationGracePeriodSeconds"] > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_kubelet_asks_each_program_as_it_answers(variant: str) -> None:
    for template in dict(pods(rendered(*VARIANTS[variant]))).values():
        (container,) = template["spec"]["containers"]
        ports = {port["containerPort"]: port["name"] for port in container.get("ports", ())}
        probes = {key: asked(probe, ports) for key, probe in container.items() if key.endswith("Probe")}
        assert probes == PROBES[program(template)]


def asked(probe: dict[str, Any], ports: dict[int, str]) -> str:
    """Protocol, name of the port, and path if there is one."""
    if "grpc" in probe:
        return f"gRPC {ports[probe['grpc']['port']]}"
    http = probe["httpGet"]
    assert http["port"] in ports.values()
    return f"{http.get('scheme', 'HTTP')} {http['port']} {http['path']}"


def program(template: dict[str, Any]) -> str:
    """The word of the program that runs in those pods."""
    return str(template["metadata"]["labels"]["app.kubernetes.io/component"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pod_has_the_tokens_that_it_uses_and_for_an_hour(variant: str) -> None:
    for template in dict(pods(rendered(*VARIANTS[variant]))).values():
        sources = [s for volume in template["spec"]["volumes"] for s in volume.get("projected", {}).get("sources", ())]
        tokens = [source["serviceAccountToken"] for source in sources if "serviceAccountToken" in source]
        found = [(token["path"], token.get("audience"), token["expirationSeconds"]) for token in tokens]
        assert found == TOKENS[program(template)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_drain_takes_one_pod_of_a_program_at_a_time(variant: str) -> None:
    """Or, of a pool, as many as it says; a budget is for exactly the pods of its workload."""
    found = rendered(*VARIANTS[variant])
    workloads = {o["metadata"]["name"]: o["spec"] for o in found if o["kind"] in {"Deployment", "StatefulSet"}}
    budgets = {o["metadata"]["name"]: o["spec"] for o in found if o["kind"] == "PodDisruptionBudget"}
    assert {name: spec["selector"] for name, spec in budgets.items()} == {
        name: spec["selector"] for name, spec in workloads.items()
    }
    for word in PROGRAMS:
        budget = budgets[f"espalier-{word}"]
        assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert all(spec["maxUnavailable"] > 0 for spec in budgets.values()), "a drain would never end"


@pytest.mark.parametrize(
    ("given", "sleep_s", "grace_s"), [((), 2, 32), (("--set", "coordinator.preStopSeconds=0"), None, 30)]
)
def test_the_coordinator_takes_calls_until_its_service_leads_nobody_to_it(
    given: tuple[str, ...], sleep_s: int | None, grace_s: int
) -> None:
    spec = find(rendered(*given), "StatefulSet", "espalier-coordinator")["spec"]["template"]["spec"]
    lifecycle = spec["containers"][0].get("lifecycle")
    assert lifecycle == (None if sleep_s is None else {"preStop": {"sleep": {"seconds": sleep_s}}})
    assert spec["terminationGracePeriodSeconds"] == grace_s


def environment(word: str, variant: str) -> dict[str, str]:
    """The program's environment as its pod gives it, with fields of the pod filled in."""
    workload = find(rendered(*VARIANTS[variant]), PROGRAMS[word], f"espalier-{word}")
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    made: dict[str, str] = {}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        key = source.get("fieldRef", {}).get("fieldPath") or source.get("secretKeyRef", {}).get("key")
        made[variable["name"]] = FIELD_VALUES[key] if key else variable["value"]
    return made


def settings_class(word: str) -> type[Settings]:
    module = importlib.import_module(f"espalier_{word}.settings")
    found = getattr(module, f"{word.capitalize()}Settings")
    assert issubclass(found, Settings)
    return found


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("word", PROGRAMS)
def test_a_program_accepts_the_settings_that_the_chart_gives(word: str, variant: str) -> None:
    """An unknown or invalid variable raises: the program would exit with 78 in the pod."""
    assert load(settings_class(word), word, environment(word, variant))


@pytest.mark.parametrize("word", PROGRAMS)
def test_the_chart_sets_every_setting_of_the_contract(word: str) -> None:
    """docs/reference/contracts.md is binding: what it lists, the chart gives."""
    page = (CHART.parents[1] / "docs/reference/contracts.md").read_text()
    settings = page.split("## Settings")[1].split("\n## ")[0]
    (row,) = re.findall(rf"^\| {word} \| (.*) \|$", settings, flags=re.M)
    inside_pods = row.split("; outside a pod")[0]
    wanted = {f"ESPALIER_{word.upper()}_{name}" for name in re.findall(r"`([A-Z_]+)`", inside_pods)}
    assert wanted <= set(environment(word, "every option"))


@pytest.mark.parametrize("word", PROGRAMS)
def test_a_program_that_asks_the_api_server_has_its_token_at_the_usual_place(word: str) -> None:
    spec = find(rendered(), PROGRAMS[word], f"espalier-{word}")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    volume = next(v for v in spec["volumes"] if v["name"] == mounts["/var/run/secrets/kubernetes.io/serviceaccount"])
    sources = {next(iter(source)): next(iter(source.values())) for source in volume["projected"]["sources"]}
    assert "audience" not in sources["serviceAccountToken"]
    assert sources["configMap"]["name"] == "kube-root-ca.crt"
    assert sources["downwardAPI"]["items"][0]["path"] == "namespace"


def test_the_operator_has_a_token_for_the_coordinator() -> None:
    spec = find(rendered(), "Deployment", "espalier-operator")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    volume = next(v for v in spec["volumes"] if v["name"] == mounts["/var/run/secrets/espalier"])
    assert volume["projected"]["sources"][0]["serviceAccountToken"]["audience"] == "espalier-coordinator"


def test_the_coordinators_name_is_in_the_certificate_whatever_is_dialled() -> None:
    by_service, by_address = environment("operator", "default"), environment("operator", "local")
    name = "espalier-coordinator.espalier-system.svc"
    assert by_service["ESPALIER_OPERATOR_COORDINATOR"] == f"{name}:50051"
    assert by_address["ESPALIER_OPERATOR_COORDINATOR"] == "127.9.1.10:50051"
    assert by_address["ESPALIER_OPERATOR_COORDINATOR_WEB"] == "https://127.9.1.10:8081"
    assert {e["ESPALIER_OPERATOR_COORDINATOR_NAME"] for e in (by_service, by_address)} == {name}


def test_a_pinned_address_is_the_pods_and_no_service_selects_it() -> None:
    pinned = rendered(*LOCAL)
    annotations = find(pinned, "StatefulSet", "espalier-coordinator")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["espalier.dev/pod-ip"] == "127.9.1.10"
    assert "selector" not in find(pinned, "Service", "espalier-coordinator")["spec"]
    assert "selector" in find(rendered(), "Service", "espalier-coordinator")["spec"]


def test_the_database_comes_from_the_named_secret_and_is_sqlite_without_one() -> None:
    def variable(*options: str) -> Any:
        spec = find(rendered(*options), "StatefulSet", "espalier-coordinator")["spec"]["template"]["spec"]
        (found,) = [v for v in spec["containers"][0]["env"] if v["name"] == "ESPALIER_COORDINATOR_DATABASE"]
        return found

    assert variable()["value"] == ""
    assert variable(*EVERY)["valueFrom"] == {"secretKeyRef": {"name": "espalier-database", "key": "url"}}


def test_the_operator_is_an_administrator_of_the_coordinator() -> None:
    admins = environment("coordinator", "default")["ESPALIER_COORDINATOR_ADMINS"]
    assert admins == "system:serviceaccount:espalier-system:espalier-operator"


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_role_is_broader_than_it_says(variant: str) -> None:
    for made in rendered(*VARIANTS[variant]):
        if made["kind"] not in {"ClusterRole", "Role"}:
            continue
        for rule in made["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            if "secrets" in rule["resources"]:
                assert not {"list", "watch"} & set(rule["verbs"]), "secrets are read by name only"
            if "serviceaccounts/token" in rule["resources"]:
                assert rule["resourceNames"] == ["espalier-submitter"]


def test_the_operators_role_is_what_its_readme_asks_for() -> None:
    page = (CHART.parents[1] / "operator/README.md").read_text()
    rows = re.findall(r"^\| `?([\w.]+)`? \| (`[^|]*) \| ([^|]*) \|$", page, flags=re.M)
    asked = {
        (group if group != "core" else "", resource, verb)
        for group, resources, verbs in rows
        for resource in re.findall(r"`([a-z/]+)`", resources)
        for verb in re.findall(r"\b(get|list|watch|create|update|patch|delete|approve)\b", verbs.split("(")[0])
    }
    rules = find(rendered(), "ClusterRole", "espalier-operator")["rules"]
    given = {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
    assert asked == given


def test_the_coordinator_may_only_review_tokens() -> None:
    rules = find(rendered(), "ClusterRole", "espalier-coordinator")["rules"]
    assert rules == [{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]


def test_the_crd_chart_has_every_kind() -> None:
    names = {made["metadata"]["name"] for made in rendered(chart=CRDS)}
    assert names == {f"{kind.plural}.espalier.dev" for kind in KINDS}
