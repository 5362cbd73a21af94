"""Alert rules; each says what is wrong and where the page is that says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

RUNBOOKS = "docs/reference/alerts.md"


@dataclass(frozen=True, slots=True)
class Alert:
    """`lasting`: for how long it must hold. `remedy` is the runbook's sentence."""

    name: str
    expression: str
    lasting: str
    severity: Literal["critical", "warning"]
    summary: str
    remedy: str


ALERTS = (
    Alert(
        "EspalierNodeLost", "time() - espalier_node_lease_renewed_timestamp_seconds > 20", "1m", "critical",
        "Node agent {{ $labels.instance }} has renewed no Lease for 20 s.",
        "Look at the agent's log on that machine and at its network; its pods have been moved where others fit.",
    ),
    Alert(
        "EspalierNodeUnhealthy", "espalier_node_healthy == 0", "2m", "warning",
        "The check of node agent {{ $labels.instance }} fails.",
        "Ask for the node's Ready condition (kubectl describe node): its message names what is missing.",
    ),
    Alert(
        "EspalierNoLeader", "sum(espalier_operator_leader) == 0", "1m", "critical",
        "No replica of the operator holds the Lease: nothing is reconciled.",
        "Look at the operator's pods and at the Lease espalier-operator in its namespace.",
    ),
    Alert(
        "EspalierQueueStuck", "max(espalier_operator_queue_oldest_seconds) > 120", "2m", "warning",
        "A key has waited in the operator's queue for more than two minutes.",
        "Look at the operator's log: one object fails again and again, or the API server is slow.",
    ),
    Alert(
        "EspalierCoordinatorAway", "max(espalier_operator_coordinator_away_seconds) > 60", "1m", "critical",
        "The operator has not reached the coordinator for a minute.",
        "Look at the pod espalier-coordinator-0 and its volume; workers keep their results until it is back.",
    ),
    Alert(
        "EspalierTasksWithoutWorker",
        "sum by (type) (espalier_coordinator_ready_tasks) > 0 and on () sum(espalier_coordinator_workers) == 0", "5m",
        "warning", "Tasks of type {{ $labels.type }} have waited for five minutes and no worker is connected.",
        "Run espalier explain on the job: quota, a full node or a missing image keeps its workers from starting.",
    ),
    Alert(
        "EspalierWorkersVanish", "increase(espalier_coordinator_lost_leases_total[10m]) > 10", "0m", "warning",
        "More than ten attempts lost their worker within ten minutes.",
        "Look for restarts and OOMKilled among worker pods; the tasks run again elsewhere.",
    ),
    Alert(
        "EspalierPlatformFaults",
        'sum(rate(espalier_worker_attempts_total{outcome="platformFault"}[10m]))'
        " / clamp_min(sum(rate(espalier_worker_attempts_total[10m])), 1e-9) > 0.2", "10m", "warning",
        "A fifth of all attempts fail by the platform's fault.",
        "The panel Failed attempts names the reason; the troubleshooting page has a remedy for each.",
    ),
)  # fmt: skip


def rules() -> dict[str, Any]:
    """A Prometheus rule file."""
    return {"groups": [{"name": "espalier", "rules": [_rule(alert) for alert in ALERTS]}]}


def page() -> str:
    """The runbooks."""
    head = "# Alerts\n\nWritten by `make generate`. The chart installs them as `observability.alerts` says.\n"
    return head + "".join(_runbook(alert) for alert in ALERTS)


def _runbook(alert: Alert) -> str:
    lasting = "" if alert.lasting == "0m" else f" for {alert.lasting}"
    return f"\n## {alert.name}\n\n{alert.severity}: `{alert.expression}`{lasting}.\n\n{alert.remedy}\n"


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.lasting,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary, "description": alert.remedy, "runbook": f"{RUNBOOKS}#{alert.name.lower()}",
        },
    }
