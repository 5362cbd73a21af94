"""What is said when a chart does not become ready."""

from __future__ import annotations

from typing import Any

from espalier_local.release import waiting_pods


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
