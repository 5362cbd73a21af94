"""The command line on a real API server: what it lists, changes, explains and refuses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from espalier_cli.__main__ import app
from espalier_cli.connection import submitter_token
from espalier_kit.errors import NotFound
from espalier_kube.client import connect
from espalier_kube.cluster import GRADING_JOB, TOKEN_REVIEW, Object
from espalier_local.cluster import Cluster
from tests.support.controlplane import ROOT, ControlPlane
from tests.support.jobs import grading_job

Espalier = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def plane(control_plane: Cluster) -> ControlPlane:
    made = ControlPlane(control_plane.kubeconfig, control_plane.assets)
    made.must("apply", "-f", str(ROOT / "crds"))
    made.must("wait", "--for=condition=Established", "crd/gradingjobs.espalier.dev", "crd/modelservers.espalier.dev")
    return made


@pytest.fixture
def espalier(plane: ControlPlane, namespace: str) -> Espalier:
    """Run a command in the test's namespace: its exit code and all it printed."""

    def run(*arguments: str) -> tuple[int, str]:
        environ = {**os.environ, "ESPALIER_KUBECONFIG": str(plane.kubeconfig), "COLUMNS": "300", "NO_COLOR": "1"}
        done = CliRunner().invoke(app, [*arguments, "-n", namespace], env=environ)
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.exit_code, done.output

    return run


@pytest.fixture
def job(plane: ControlPlane, namespace: str) -> str:
    """The name of a GradingJob that nobody works on."""
    made = grading_job("class", namespace, assignment="artifact://" + "0" * 64, submissions="artifact://" + "1" * 64)
    assert plane.apply(made).code == 0
    return "class"


def stored(plane: ControlPlane, namespace: str) -> Object:
    async def get() -> Object:
        client = await connect(plane.kubeconfig)
        try:
            return await client.get(GRADING_JOB, "class", namespace)
        finally:
            await client.close()

    return asyncio.run(get())


def end(plane: ControlPlane, namespace: str, type_: str) -> None:
    """Give the job a final condition, as the operator would."""
    condition = {
        "type": type_, "status": "True", "reason": "Finished", "message": "all done",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip

    async def patch() -> None:
        client = await connect(plane.kubeconfig)
        try:
            status: dict[str, Any] = {"phase": type_, "progressPercent": 100, "conditions": [condition]}
            await client.patch(GRADING_JOB, "class", namespace, {"status": status}, subresource="status")
        finally:
            await client.close()

    asyncio.run(patch())


def test_list_and_show(espalier: Espalier, job: str) -> None:
    code, said = espalier("jobs", "list")
    assert (code, job in said) == (0, True)
    assert "only objects of the cluster are listed" in said, "there is no coordinator"
    assert espalier("jobs", "show", job)[0] == 0


def test_suspend_resume_and_cancel_change_the_object(
    espalier: Espalier, plane: ControlPlane, namespace: str, job: str
) -> None:
    steps = {"suspend": ("suspend", True), "resume": ("suspend", False), "cancel": ("cancel", True)}
    for command, (field, value) in steps.items():
        code, said = espalier("jobs", command, f"gj/{job}")
        assert code == 0, said
        assert stored(plane, namespace)["spec"]["runPolicy"][field] is value


def test_an_ended_job_cannot_be_changed(espalier: Espalier, plane: ControlPlane, namespace: str, job: str) -> None:
    end(plane, namespace, "Complete")
    code, said = espalier("jobs", "suspend", job)
    assert (code, "already ended (Complete)" in said) == (1, True)


@pytest.mark.parametrize(("type_", "code"), [("Complete", 0), ("Cancelled", 1), ("Failed", 1)])
def test_watch_ends_with_the_job(
    espalier: Espalier, plane: ControlPlane, namespace: str, job: str, type_: str, code: int
) -> None:
    end(plane, namespace, type_)
    ended, said = espalier("jobs", "watch", job)
    assert (ended, f"class: {type_}" in said) == (code, True)


def test_explain(espalier: Espalier, plane: ControlPlane, namespace: str, job: str) -> None:
    code, said = espalier("explain", f"gj/{job}")
    assert (code, "operator has not looked" in said) == (0, True)
    end(plane, namespace, "Complete")
    code, said = espalier("explain", f"gj/{job}")
    assert (code, "all done" in said) == (0, True)
    assert "next: " in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jobs", "show", "nobody"), "there is no GradingJob or BenchmarkJob or BenchmarkComparison nobody"),
        (("jobs", "watch", "gj/nobody"), "there is no GradingJob nobody"),
        (("explain", "pod/x"), "the kind must be one of gj"),
        (("report", "nobody"), "there is no GradingJob nobody"),
        (("push", __file__), "install the chart"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else None,
)
def test_wrong_input_is_one_sentence(espalier: Espalier, arguments: tuple[str, ...], said: str) -> None:
    code, printed = espalier(*arguments)
    assert (code, said in printed) == (1, True), printed
    assert "Traceback" not in printed


async def test_submitter_token_is_good_for_the_coordinator_only(plane: ControlPlane, namespace: str) -> None:
    client = await connect(plane.kubeconfig)
    try:
        token = await submitter_token(client, namespace)
        review = {
            "apiVersion": TOKEN_REVIEW.api_version, "kind": TOKEN_REVIEW.kind,
            "spec": {"token": token, "audiences": ["espalier-coordinator"]},
        }  # fmt: skip
        status = (await client.create(review))["status"]
        assert status["user"]["username"] == f"system:serviceaccount:{namespace}:espalier-submitter"
        review["spec"] = {"token": token}
        assert not (await client.create(review))["status"].get("authenticated")
    finally:
        await client.close()


async def test_missing_namespace_is_named(plane: ControlPlane) -> None:
    client = await connect(plane.kubeconfig)
    try:
        with pytest.raises(NotFound, match="namespace nowhere does not exist"):
            await submitter_token(client, "nowhere")
    finally:
        await client.close()
