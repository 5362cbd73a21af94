"""NetworkPolicies of job namespaces: read from the chart's file, made before the pods that they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from espalier_kit.errors import Misconfigured
from espalier_kube.cluster import NETWORK_POLICY
from espalier_operator.plan.policies import PolicyTemplate, job_policies, parse_templates, read_templates
from tests.support.operator_world import NAMESPACE, World, grading_job, operator_settings

DENY = PolicyTemplate("espalier-default-deny", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})


def test_a_policy_is_the_same_in_each_namespace() -> None:
    one, other = (job_policies(namespace, (DENY,))[0] for namespace in ("course-a", "course-b"))
    assert one["metadata"] == {
        "name": "espalier-default-deny", "namespace": "course-a",
        "labels": {"app.kubernetes.io/managed-by": "espalier", "app.kubernetes.io/component": "network"},
    }  # fmt: skip
    assert one["spec"] == other["spec"] == DENY.spec
    assert (one["apiVersion"], one["kind"]) == (NETWORK_POLICY.api_version, "NetworkPolicy")


def test_the_file_is_a_list_of_names_and_specs(tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text("- name: espalier-default-deny\n  spec: {podSelector: {}, policyTypes: [Ingress, Egress]}\n")
    assert read_templates(file) == (DENY,)
    assert parse_templates("[]") == parse_templates("") == read_templates(None) == ()


@pytest.mark.parametrize("text", ["{a: b}", "- name: x", "- [", "7"], ids=["a map", "no spec", "no YAML", "a number"])
def test_anything_else_is_one_sentence(text: str) -> None:
    with pytest.raises(Misconfigured, match="ESPALIER_OPERATOR_POLICIES_FILE must hold a YAML list"):
        parse_templates(text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"ESPALIER_OPERATOR_POLICIES_FILE: .*nowhere"):
        read_templates(tmp_path / "nowhere")


async def test_a_jobs_namespace_is_shut_before_its_pods_are_made(tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text("[{name: espalier-default-deny, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}]")
    world = await World(settings=operator_settings(policies_file=file)).begin()
    await world.create(grading_job())
    assert await world.names(NETWORK_POLICY) == ["espalier-default-deny"]
    applied = [kind for verb, kind in world.cluster.calls if verb == "apply"]
    assert applied.index("NetworkPolicy") < min(applied.index("Job"), applied.index("ModelServer"))
    assert {p["metadata"]["namespace"] for p in (await world.cluster.list(NETWORK_POLICY)).items} == {NAMESPACE}


async def test_without_a_file_no_policy_is_made() -> None:
    world = await World().begin()
    await world.create(grading_job())
    assert await world.names(NETWORK_POLICY) == []
