"""What is said when a chart does not become ready."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from espalier_local import recipe
from espalier_local.addresses import Cables
from espalier_local.building import Built
from espalier_local.imagestore import Image, Store
from espalier_local.release import IMAGE_ANNOTATION, container_values, waiting_pods


def pod(name: str, *, is_ready: bool, waiting: dict[str, str] | None = None, phase: str = "Running") -> dict[str, Any]:
    state = {"waiting": waiting} if waiting else {"running": {}}
    return {
        "metadata": {"name": name},
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": str(is_ready)}],
            "containerStatuses": [{"ready": is_ready, "state": state}],
        },
    }


def test_each_pod_that_is_not_ready_says_what_it_waits_for() -> None:
    missing = {"reason": "CreateContainerConfigError", "message": "Secret tls does not exist"}
    assert waiting_pods([pod("good", is_ready=True), pod("bad", is_ready=False, waiting=missing)]) == (
        "pod bad is CreateContainerConfigError Secret tls does not exist",
    )


def test_a_pod_without_a_node_is_pending() -> None:
    unscheduled = {"metadata": {"name": "p"}, "status": {"phase": "Pending"}}
    assert waiting_pods([unscheduled]) == ("pod p is Pending",)


def test_container_nodes_use_names_and_replace_pods_of_another_image() -> None:
    images = tuple(
        Image(f"espalier-{program}:1", f"sha256:{program}", "manifest", 1, (), 1, 1) for program in recipe.PROGRAMS
    )
    values = container_values(Cables(7), ["default"], Built("key", Store(Path()), images, {}, Path()))
    assert "address" not in values["coordinator"]
    assert values["coordinator"]["podAnnotations"] == {IMAGE_ANNOTATION: "sha256:coordinator"}
    assert values["operator"]["podAnnotations"] == {IMAGE_ANNOTATION: "sha256:operator"}
    assert values["nodes"]["addresses"] == ["10.89.7.0/24"]
    assert values["networkPolicies"]["apiServer"]["cidrs"] == ["10.89.7.1/32"]
