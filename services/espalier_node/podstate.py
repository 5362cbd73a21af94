"""Container states → the pod's status as the API shows it (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from espalier_kube.cluster import Object
from espalier_node.podspec import ContainerSpec, PodSpec
from espalier_node.runtime import Run
from espalier_node.steps import Progress, View, Waiting, has_done_its_part, initialised, progress

ConditionFact = tuple[bool, str, str]
"""(is true, reason, message)."""


def pod_status(
    pod: PodSpec, views: Mapping[str, View], *, now: datetime, host_ip: str, pod_ip: str | None,
    image_ids: Mapping[str, str], failure: Waiting | None = None, is_final: bool = False,
) -> dict[str, Any]:
    """The whole status. `failure` makes the pod Failed with that reason (deadline); `is_final` is the last word on a
    deleted pod, whose containers have all ended: every container is told as terminated then, and the phase is final."""
    old = pod.raw.get("status") or {}
    phase = _phase(pod, views, old, failure=failure, is_final=is_final)
    is_ended = phase in ("Succeeded", "Failed")
    statuses = {c.name: _container(c, pod, views, image_ids, is_final=is_final) for c in pod.containers}
    status: dict[str, Any] = {
        "phase": phase,
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "startTime": old.get("startTime") or timestamp(now),
        "qosClass": old.get("qosClass") or qos_class(pod),
        "observedGeneration": pod.raw["metadata"].get("generation", 1),
        "containerStatuses": [statuses[c.name] for c in pod.main],
        "conditions": _conditions(pod, views, old, now, is_ended=is_ended, has_address=pod_ip is not None),
    }
    if pod.init:
        status["initContainerStatuses"] = [statuses[c.name] for c in pod.init]
    if pod_ip is not None:
        status |= {"podIP": pod_ip, "podIPs": [{"ip": pod_ip}]}
    if failure is not None:
        status |= {"reason": failure.reason, "message": failure.message}
    return status


def qos_class(pod: PodSpec) -> str:
    """Guaranteed, Burstable or BestEffort, by requests and limits of CPU and memory."""
    resources = [c.raw.get("resources") or {} for c in pod.containers]
    pairs = [(r.get("requests") or {}, r.get("limits") or {}) for r in resources]
    names = ("cpu", "memory")
    if not any(name in part for pair in pairs for part in pair for name in names):
        return "BestEffort"
    is_guaranteed = all(
        name in limits and requests.get(name, limits[name]) == limits[name]
        for requests, limits in pairs
        for name in names
    )
    return "Guaranteed" if is_guaranteed else "Burstable"


def timestamp(moment: datetime) -> str:
    """RFC 3339, whole seconds, as Kubernetes writes times."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def differs(old: Object, new: Mapping[str, Any]) -> bool:
    """Whether writing `new` over the status `old` would change anything."""
    kept = {key: old.get(key) for key in new if key != "conditions"}
    return kept != {key: value for key, value in new.items() if key != "conditions"} or any(
        condition not in (old.get("conditions") or ()) for condition in new["conditions"]
    )


def _phase(
    pod: PodSpec, views: Mapping[str, View], old: Object, *, failure: Waiting | None, is_final: bool
) -> Progress:
    if old.get("phase") in ("Succeeded", "Failed"):
        ended: Progress = old["phase"]
        return ended
    if failure is not None:
        return "Failed"
    phase = progress(pod, views)
    if phase in ("Succeeded", "Failed"):
        is_quiet = not any(view.is_running for view in views.values())  # a sidecar may still be stopping
        return phase if is_quiet else "Running"
    if not is_final:
        return phase
    return "Succeeded" if all(views.get(c.name, View()).has_succeeded for c in pod.main) else "Failed"


def _container(
    container: ContainerSpec, pod: PodSpec, views: Mapping[str, View], image_ids: Mapping[str, str], *, is_final: bool
) -> dict[str, Any]:
    view = views.get(container.name, View())
    run = view.run
    waiting = view.waiting or (None if run else _not_yet(container, pod, views))
    last = None
    if waiting is not None and not view.is_running and not is_final:
        state: dict[str, Any] = {"waiting": _without_empty({"reason": waiting.reason, "message": waiting.message})}
        last = run
    elif run is None:
        state = {"terminated": {
            "exitCode": 137, "reason": "ContainerStatusUnknown",
            "message": "The container never started.",
        }}
    elif run.is_running:
        state = {"running": {"startedAt": timestamp(run.started_at)}}
        last = view.runs[1] if len(view.runs) > 1 else None
    else:
        state = {"terminated": _terminated(run)}
        last = view.runs[1] if len(view.runs) > 1 else None
    return {
        "name": container.name,
        "image": container.image,
        "imageID": image_ids.get(container.name, ""),
        "restartCount": run.attempt if run else 0,
        "ready": _is_ready(container, view),
        "started": view.is_started and view.is_running,
        "state": state,
        "lastState": {"terminated": _terminated(last)} if last else {},
        **({"containerID": run.container_id} if run else {}),
    }


def _is_ready(container: ContainerSpec, view: View) -> bool:
    if container.is_init and not container.is_sidecar:
        return view.has_succeeded
    return view.is_running and view.is_ready


def _not_yet(container: ContainerSpec, pod: PodSpec, views: Mapping[str, View]) -> Waiting:
    is_blocked = bool(pod.init) and not (container.is_init and container is pod.init[0]) and not initialised(pod, views)
    return Waiting("PodInitializing" if is_blocked else "ContainerCreating")


def _terminated(run: Run) -> dict[str, Any]:
    assert run.finished_at is not None
    return _without_empty({
        "exitCode": run.exit_code,
        "signal": run.signal or None,
        "reason": run.reason,
        "message": run.message,
        "startedAt": timestamp(run.started_at),
        "finishedAt": timestamp(run.finished_at),
        "containerID": run.container_id,
    })


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, "")}


def _conditions(
    pod: PodSpec, views: Mapping[str, View], old: Object, now: datetime, *, is_ended: bool, has_address: bool
) -> list[dict[str, Any]]:
    facts = _facts(pod, views, old, is_ended=is_ended, has_address=has_address)
    before = {condition["type"]: condition for condition in old.get("conditions") or ()}
    generation = pod.raw["metadata"].get("generation", 1)
    made = []
    for name, (is_true, reason, message) in facts.items():
        status, known = ("True" if is_true else "False"), before.get(name, {})
        since = known.get("lastTransitionTime") if known.get("status") == status else None
        made.append({
            "type": name, "status": status, "lastProbeTime": None, "lastTransitionTime": since or timestamp(now),
            "observedGeneration": generation, **_without_empty({"reason": reason, "message": message}),
        })
    return made


def _facts(
    pod: PodSpec, views: Mapping[str, View], old: Object, *, is_ended: bool, has_address: bool
) -> dict[str, ConditionFact]:
    containers = (False, "PodCompleted", "") if is_ended else _containers_ready(pod, views)
    gates = _closed_gates(pod, old)
    ready = containers
    if containers[0] and gates:
        ready = (False, "ReadinessGatesNotReady", f"the status of pod readiness gate {gates[0]!r} is not True")
    return {
        "PodReadyToStartContainers": (has_address and not is_ended, "", ""),
        "Initialized": _initialised(pod, views),
        "ContainersReady": containers,
        "Ready": ready,
    }


def _containers_ready(pod: PodSpec, views: Mapping[str, View]) -> ConditionFact:
    lasting = (*pod.main, *(c for c in pod.init if c.is_sidecar))
    unready = [c.name for c in lasting if not _is_ready(c, views.get(c.name, View()))]
    if not unready:
        return (True, "", "")
    return (False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")


def _initialised(pod: PodSpec, views: Mapping[str, View]) -> ConditionFact:
    has_begun = any(views.get(c.name, View()).runs for c in pod.main)
    incomplete = [c.name for c in pod.init if not has_done_its_part(c, views.get(c.name, View()))]
    if has_begun or not incomplete:
        return (True, "", "")
    return (False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(incomplete)}]")


def _closed_gates(pod: PodSpec, old: Object) -> list[str]:
    true = {c["type"] for c in old.get("conditions") or () if c["status"] == "True"}
    gates = (gate["conditionType"] for gate in pod.raw["spec"].get("readinessGates") or ())
    return [gate for gate in gates if gate not in true]
