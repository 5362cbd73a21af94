"""Container states → pod status."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from espalier_kube.cluster import Object
from espalier_node.podspec import PodSpec
from espalier_node.podstate import differs, pod_status, qos_class
from espalier_node.steps import View, Waiting
from tests.support.node import START, container, pod, run, states, view

NOW = START + timedelta(minutes=1)


def status(spec: PodSpec, views: dict[str, View], **fields: Any) -> dict[str, Any]:
    return pod_status(
        spec, views, now=NOW, host_ip="127.77.1.1", pod_ip=fields.pop("pod_ip", "127.77.1.10"),
        image_ids={"main": "runtime://x"}, **fields,
    )  # fmt: skip


def condition(found: dict[str, Any], name: str) -> Object:
    return next(c for c in found["conditions"] if c["type"] == name)


def test_a_ready_pod() -> None:
    found = status(pod(), {"main": view(ready=True)})
    assert (found["phase"], found["podIP"], found["hostIP"]) == ("Running", "127.77.1.10", "127.77.1.1")
    assert {c["type"]: c["status"] for c in found["conditions"]} == {
        "PodReadyToStartContainers": "True", "Initialized": "True", "ContainersReady": "True", "Ready": "True",
    }  # fmt: skip
    (main,) = found["containerStatuses"]
    assert (main["ready"], main["started"], main["restartCount"]) == (True, True, 0)
    assert main["imageID"] == "runtime://x"


def test_an_unready_container_is_named() -> None:
    ready = condition(status(pod(), {"main": view()}), "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ContainersNotReady")
    assert ready["message"] == "containers with unready status: [main]"


def test_before_anything_started() -> None:
    found = status(pod(init=(container("i"),)), {}, pod_ip=None)
    assert states(found) == {"i": "ContainerCreating", "main": "PodInitializing"}
    assert "podIP" not in found
    assert condition(found, "Initialized")["message"] == "containers with incomplete status: [i]"


def test_a_restarted_container_tells_of_its_last_run() -> None:
    main = View(runs=(run(attempt=1), run(code=3)), is_started=True, is_ready=True)
    (told,) = status(pod(), {"main": main})["containerStatuses"]
    assert told["restartCount"] == 1
    assert told["lastState"]["terminated"]["exitCode"] == 3


def test_a_crash_loop_waits_and_keeps_the_last_run() -> None:
    main = View(runs=(run(code=3),), waiting=Waiting("CrashLoopBackOff", "back-off 10s"))
    (told,) = status(pod(), {"main": main})["containerStatuses"]
    assert told["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    assert told["lastState"]["terminated"]["exitCode"] == 3


@pytest.mark.parametrize(
    ("code", "phase"), [(0, "Succeeded"), (143, "Failed"), (None, "Failed")], ids=["clean", "signal", "never ran"]
)
def test_last_words_have_a_final_phase(code: int | None, phase: str) -> None:
    views = {} if code is None else {"main": view(code=code)}
    found = status(pod(), views, is_final=True)
    assert found["phase"] == phase
    assert "terminated" in found["containerStatuses"][0]["state"]


def test_a_final_phase_stays() -> None:
    found = status(pod(status={"phase": "Succeeded"}), {"main": view(code=0)})
    assert found["phase"] == "Succeeded"
    assert condition(found, "Ready")["reason"] == "PodCompleted"


def test_a_job_is_not_done_while_its_sidecar_stops() -> None:
    spec = pod(init=(container("side", restartPolicy="Always"),), restartPolicy="Never")
    assert status(spec, {"side": view(), "main": view(code=0)})["phase"] == "Running"
    assert status(spec, {"side": view(code=143), "main": view(code=0)})["phase"] == "Succeeded"


def test_a_deadline_fails_the_pod_with_its_reason() -> None:
    found = status(pod(), {"main": view(code=137)}, failure=Waiting("DeadlineExceeded", "too long"))
    assert (found["phase"], found["reason"], found["message"]) == ("Failed", "DeadlineExceeded", "too long")


def test_readiness_gates_hold_ready_back() -> None:
    spec = pod(readinessGates=[{"conditionType": "x/y"}])
    assert condition(status(spec, {"main": view(ready=True)}), "Ready")["reason"] == "ReadinessGatesNotReady"
    opened = pod(readinessGates=[{"conditionType": "x/y"}], status={"conditions": [{"type": "x/y", "status": "True"}]})
    assert condition(status(opened, {"main": view(ready=True)}), "Ready")["status"] == "True"


def test_transition_times_are_kept_while_nothing_changes() -> None:
    first = status(pod(), {"main": view(ready=True)})
    later = pod_status(
        pod(status=first), {"main": view(ready=True)}, now=NOW + timedelta(hours=1), host_ip="127.77.1.1",
        pod_ip="127.77.1.10", image_ids={"main": "runtime://x"},
    )  # fmt: skip
    assert not differs(first, later)
    assert differs(first, status(pod(status=first), {"main": view()}))


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
    ],
    ids=["none", "request", "half a limit", "limits", "less requested"],
)
def test_qos_class(resources: Object, expected: str) -> None:
    assert qos_class(pod(container(resources=resources))) == expected
