"""BenchmarkJob and BenchmarkComparison on a real API server: taken, refused with a sentence, shown, waited for."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from espalier_local.cluster import Cluster
from tests.support.controlplane import ROOT, ControlPlane

EXAMPLES = sorted((ROOT / "examples/benchmark").glob("*.yaml"))
ENDPOINT = {"endpoint": {"url": "http://127.0.0.1:9", "model": "m"}}
LOAD = {"pattern": "poisson", "rate": 2, "durationSeconds": 10}
GATE = {"metric": "ttft", "max": 9}
ARTIFACT = {"uri": "artifact://" + "a" * 64}
HEAD = ["NAME", "PHASE", "DONE", "P50 TTFT", "OUT TOK/S", "GOODPUT", "VALID", "ETA", "AGE"]


def job(name: str = "load", **spec: Any) -> dict[str, Any]:
    body = {"targets": [ENDPOINT], "load": LOAD, **spec}
    kept = {key: value for key, value in body.items() if value is not None}
    return {"apiVersion": "espalier.dev/v1alpha1", "kind": "BenchmarkJob", "metadata": {"name": name}, "spec": kept}


def comparison(**spec: Any) -> dict[str, Any]:
    body = {"baseline": {"benchmarkJob": "before"}, "candidate": {"benchmarkJob": "after"}, **spec}
    return {
        "apiVersion": "espalier.dev/v1alpha1", "kind": "BenchmarkComparison", "metadata": {"name": "gate"}, "spec": body
    }


def within(document: dict[str, Any], namespace: str) -> dict[str, Any]:
    made = copy.deepcopy(document)
    made["metadata"]["namespace"] = namespace
    return made


@pytest.fixture(scope="module")
def plane(control_plane: Cluster) -> ControlPlane:
    made = ControlPlane(control_plane.kubeconfig, control_plane.assets)
    made.must("apply", "-f", str(ROOT / "crds"))
    for plural in ("benchmarkjobs", "benchmarkcomparisons"):
        made.must("wait", "--for=condition=Established", f"crd/{plural}.espalier.dev")
    return made


def patch(plane: ControlPlane, namespace: str, what: str, body: dict[str, Any], *options: str) -> Any:
    return plane.kubectl("-n", namespace, "patch", what, "--type=merge", "-p", json.dumps(body), *options)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_taken_as_it_is(plane: ControlPlane, namespace: str, path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        answer = plane.apply(within(document, namespace))
        assert answer.code == 0, answer.text


FULL = (
    {"load": {"pattern": "constant", "rate": 1, "requests": 5}},
    {"load": {"pattern": "gamma", "rate": 1, "cv": 2, "durationSeconds": 9, "warmupSeconds": 2, "cooldownSeconds": 2}},
    {"load": {"pattern": "ramp", "startRate": 0, "endRate": 9, "durationSeconds": 9}},
    {"load": {"pattern": "sweep", "rates": [1, 2, 4], "durationSeconds": 9, "maxInFlight": 64}},
    {"load": {"pattern": "trace", "trace": {"source": ARTIFACT, "format": "mooncake", "speed": 2}}},
    {"targets": [ENDPOINT, {**ENDPOINT, "name": "b"}], "load": {"pattern": "concurrency", "concurrency": 1,
                                                                "requests": 5, "blocks": 8}},
    {"load": None, "accuracy": {"packs": [{"name": "gsm8k", "file": ARTIFACT, "items": 9}]}},
    {"accuracy": {"evaluators": ["perplexity", "judge"], "texts": ARTIFACT, "judge": ENDPOINT}},
    {"dataset": {"file": ARTIFACT}, "slo": {"ttftMs": 100, "itlMs": 10, "e2eMs": 900}, "cache": "read-write"},
    {"gate": [{"metric": "ttft", "statistic": "p90", "max": 200}, {"metric": "accuracy", "name": "gsm8k", "min": 0.5}]},
    {"load": None, "accuracy": {"packs": [{"name": "humaneval"}]}, "execution": {"sandbox": "gvisor"}},
    {"accuracy": {"packs": [{"name": "humaneval"}]}, "execution": {"sandbox": "container"}},
    {"targets": None, "load": None, "templateRef": {"name": "t"}, "execution": {"sandbox": "container"}},
    {"accuracy": {"packs": [{"name": "humaneval"}]}, "execution": {"sandbox": "bubblewrap"},
     "generators": {"pool": "big"}},
    {"generators": {"replicas": 3, "placement": "mlx"}, "limits": {"maxCost": 2.5, "maxOutputTokens": 9}},
    {"load": None, "tasks": [{"name": "a", "type": "x"}]},
    {"targets": None, "load": None, "templateRef": {"name": "t", "parameters": [{"name": "a", "value": "b"}]}},
    {
        "targets": None, "load": None, "tags": ["nightly"], "tasks": [
            {"name": "a", "type": "x", "payload": {"deep": {"er": [1, {"k": None}]}}, "resources": {"gpu": 0.5}},
            {"name": "b", "type": "z", "dependsOn": [{"task": "a", "when": "finished"}], "requiredTags": ["gpu"]},
        ],
    },
)  # fmt: skip


@pytest.mark.parametrize("spec", FULL, ids=lambda spec: ",".join(spec))
def test_every_way_to_say_it_is_taken(plane: ControlPlane, namespace: str, spec: dict[str, Any]) -> None:
    answer = plane.apply(within(job(**spec), namespace))
    assert answer.code == 0, answer.text


def test_a_payload_is_kept_as_it_was_written(plane: ControlPlane, namespace: str) -> None:
    payload = {"provider": "local", "nested": {"list": [1, 2.5, "x", {"k": True}]}}
    task = {"name": "a", "type": "x", "payload": payload}
    plane.apply(within(job(targets=None, load=None, tasks=[task]), namespace))
    found = json.loads(plane.must("-n", namespace, "get", "bj/load", "-o", "json"))
    assert found["spec"]["tasks"][0]["payload"] == payload


REFUSED = (
    ({"targets": None}, "load and accuracy are about targets"),
    ({"tasks": [{"name": "a", "type": "x"}]}, "say one of them"),
    ({"load": None}, "say one of them"),
    ({"load": None, "slo": {"ttftMs": 5}, "tasks": [{"name": "a", "type": "x"}]}, "belong to load or accuracy"),
    ({"load": None, "gate": [GATE], "tasks": [{"name": "a", "type": "x"}]}, "belong to load or accuracy"),
    ({"load": {"pattern": "poisson", "durationSeconds": 9}}, "load.rate goes with load.pattern constant or poisson"),
    ({"load": {**LOAD, "cv": 2}}, "load.cv goes with load.pattern gamma"),
    ({"load": {"pattern": "poisson", "rate": 2}}, "say how long the run is"),
    ({"load": {"pattern": "sweep", "rates": [1], "requests": 9}}, "a ramp or a sweep needs load.durationSeconds"),
    ({"load": {**LOAD, "warmupSeconds": 6, "cooldownSeconds": 4}}, "leave nothing to measure"),
    ({"load": {**LOAD, "blocks": 8}}, "load.blocks is for two targets"),
    (
        {"targets": [ENDPOINT, ENDPOINT], "load": {"pattern": "concurrency", "concurrency": 1, "durationSeconds": 9}},
        "end after load.requests, not a time",
    ),
    ({"slo": {}}, "slo asks nothing"),
    ({"slo": {"ttftMs": 900, "e2eMs": 100}}, "slo cannot be kept"),
    ({"dataset": {"file": ARTIFACT, "pack": "p"}}, "dataset takes one of"),
    ({"accuracy": {}}, "accuracy needs a pack or an evaluator"),
    ({"accuracy": {"evaluators": ["coherence"]}}, "accuracy.texts is what evaluators read"),
    ({"accuracy": {"evaluators": ["judge"], "texts": ARTIFACT}}, "evaluator judge asks accuracy.judge"),
    (
        {"accuracy": {"packs": [{"name": "humaneval"}]}, "generators": {"placement": "mlx"}},
        "humaneval runs what the model wrote",
    ),
    ({"execution": {"sandbox": "container"}}, "execution.sandbox confines answers, and load alone has none"),
    (
        {"accuracy": {"packs": [{"name": "reasoning-gym:ab"}]}, "execution": {"sandbox": "container"},
         "generators": {"placement": "mlx"}}, "what a model wrote never runs on Macs",
    ),
    (
        {"accuracy": {"packs": [{"name": "humaneval"}]}, "execution": {"sandbox": "container"},
         "generators": {"pool": "big"}}, "leave out generators.pool",
    ),
    (
        {"accuracy": {"packs": [{"name": "humaneval"}]}, "execution": {"sandbox": "gvisor"}},
        "put load and execution.sandbox gvisor into two jobs",
    ),
    ({"accuracy": {"packs": [{"name": "humaneval"}]}, "execution": {"sandbox": "none"}}, "Unsupported value"),
    ({"gate": [{"metric": "ttft"}]}, "a gate needs max or min"),
    ({"gate": [{"metric": "accuracy", "min": 1}]}, "metric accuracy needs name"),
    ({"gate": [{"metric": "goodShare", "statistic": "p50", "min": 1}]}, "only latencies have a statistic"),
    ({"targets": [{"modelServer": "a", **ENDPOINT}]}, "exactly one of modelServer, template or endpoint"),
    ({"targets": [ENDPOINT] * 3}, "must have at most 2 items"),
    ({"generators": {"pool": "big", "replicas": 2}}, "with generators.pool leave out replicas"),
    ({"targets": None, "load": None, "tasks": [{"name": "a", "type": "x"}] * 2}, "Duplicate value"),
    ({"dataset": {"file": {"uri": "file:///etc/passwd"}}}, "a source is artifact://"),
)


@pytest.mark.parametrize(("spec", "said"), REFUSED, ids=[f"{n} {said}" for n, (_, said) in enumerate(REFUSED)])
def test_what_could_never_run_is_refused_with_what_to_change(
    plane: ControlPlane, namespace: str, spec: dict[str, Any], said: str
) -> None:
    answer = plane.apply(within(job(**spec), namespace))
    assert answer.code != 0
    assert said in answer.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"load": {"rate": 3}}, "cannot change after creation"),
        ({"slo": {"ttftMs": 5}}, "cannot change after creation"),
        ({"accuracy": {"packs": [{"name": "humaneval"}]}, "execution": {"sandbox": "container"}}, "cannot change"),
        ({"generators": {"replicas": 2}}, "generators cannot change after creation"),
        ({"runPolicy": {"retries": 0}}, "spec.runPolicy.retries cannot change"),
    ],
)
def test_what_was_measured_cannot_be_rewritten(
    plane: ControlPlane, namespace: str, change: dict[str, Any], said: str
) -> None:
    plane.apply(within(job(), namespace))
    answer = patch(plane, namespace, "bj/load", {"spec": change})
    assert answer.code != 0
    assert said in answer.text


def test_how_it_runs_can_change_and_a_workflow_can_grow(plane: ControlPlane, namespace: str) -> None:
    plane.apply(within(job(targets=None, load=None, tasks=[{"name": "a", "type": "x"}]), namespace))
    policy = {"suspend": True, "priority": 5, "ttlSecondsAfterFinished": 9, "activeDeadlineSeconds": 60}
    for change in ({"runPolicy": policy}, {"generators": {"replicas": 4}}):
        answer = patch(plane, namespace, "bj/load", {"spec": change})
        assert answer.code == 0, answer.text


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"candidate": {"benchmarkJob": "before"}}, "baseline and candidate are the same run"),
        ({"metrics": []}, "should have at least 1 items"),
        ({"metrics": ["speed"]}, "Unsupported value"),
        ({"margin": 1}, "should be less than 1"),
    ],
    ids=["one run", "no metric", "unknown metric", "margin"],
)
def test_a_comparison_of_nothing_is_refused(
    plane: ControlPlane, namespace: str, spec: dict[str, Any], said: str
) -> None:
    answer = plane.apply(within(comparison(**spec), namespace))
    assert answer.code != 0
    assert said in answer.text


def condition(type_: str, status: str, reason: str) -> dict[str, Any]:
    return {
        "type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-05T12:00:00Z"
    }


STATUS: dict[str, Any] = {
    "phase": "Complete", "progressPercent": 100, "validity": {"verdict": "Valid"},
    "headline": {"ttftP50Ms": 48.2, "outputTokensPerSecond": 81.5, "goodputPerSecond": 1.9},
    "conditions": [condition("Passed", "True", "GatePassed")],
}


def columns(head: str) -> list[str]:
    return [column for column in head.replace("   ", "\n").splitlines() if column.strip()]


def test_headline_figures_stand_in_columns_and_jobs_are_found_by_phase(plane: ControlPlane, namespace: str) -> None:
    plane.apply(within(job(), namespace))
    plane.apply(within(job("other"), namespace))
    assert patch(plane, namespace, "bj/load", {"status": STATUS}, "--subresource=status").code == 0
    head, row = plane.must("-n", namespace, "get", "bj", "--field-selector=status.phase=Complete").splitlines()
    assert [column.strip() for column in columns(head)] == HEAD
    assert row.split()[:-1] == ["load", "Complete", "100", "48.2", "81.5", "1.9", "Valid"]


def test_a_gate_is_waited_for(plane: ControlPlane, namespace: str) -> None:
    plane.apply(within(comparison(), namespace))
    waiting = plane.kubectl("-n", namespace, "wait", "--for=condition=Passed", "bmc/gate", "--timeout=1s")
    assert waiting.code != 0
    found = {
        "verdict": "Passed", "delta": 1.2, "metric": "e2e", "conditions": [condition("Passed", "True", "Passed")]
    }
    assert patch(plane, namespace, "bmc/gate", {"status": found}, "--subresource=status").code == 0
    plane.must("-n", namespace, "wait", "--for=condition=Passed", "bmc/gate", "--timeout=10s")
    head, row = plane.must("-n", namespace, "get", "bmc").splitlines()
    assert [column.strip() for column in columns(head)] == ["NAME", "VERDICT", "Δ %", "METRIC", "AGE"]
    assert row.split()[:-1] == ["gate", "Passed", "1.2", "e2e"]
