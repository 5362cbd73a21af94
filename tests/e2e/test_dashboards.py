"""Every panel and alert, asked of a real Prometheus that watches a class being graded and a server being measured."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from espalier_kube.cluster import BENCHMARK_JOB
from espalier_observability.alerts import ALERTS
from espalier_observability.boards import BOARDS
from tests.support import classroom
from tests.support.prometheus import Prometheus, scraping
from tests.support.waiting import has, until

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "charts/espalier/files"
SECONDS = 240
DRAWN_S = 20
_METRIC = re.compile(r"\bespalier_[a-z_]+\b")


async def test_every_panel_has_data_while_work_is_done(platform, namespace, tmp_path) -> None:
    async with scraping(platform, FILES / "scrape.yaml", tmp_path) as prometheus:
        await _work(platform, namespace)
        empty = await _until_drawn(prometheus)
        known = set(await prometheus.ask("label/__name__/values"))
        targets = (await prometheus.ask("targets"))["activeTargets"]
    assert not empty, f"panels without data: {empty}"
    asked = {name for board in BOARDS for panel in board.panels for query in panel.queries
             for name in _METRIC.findall(query.expression)}
    asked |= {name for alert in ALERTS for name in _METRIC.findall(alert.expression)}
    assert not asked - known - _quiet_metrics(), "metrics that no program has"
    nodes = {target["labels"]["node"] for target in targets if target["scrapePool"] == "espalier-nodes"}
    assert nodes == {"linux-1", "mac-studio-1", "mac-studio-2"}


async def _work(platform, namespace) -> None:
    job = await platform.submit(namespace, "watched", students=classroom.good_class(4))
    await platform.until(job, has("Complete"), timeout_s=SECONDS, what="Complete")
    files = [(ROOT / f"examples/benchmark/{name}.yaml").read_text() for name in ("modelserver", "workflow")]
    documents = [document for text in files for document in yaml.safe_load_all(text)]
    workflow = documents[-1]["spec"]  # one task at a time, so that its worker is still there after the first has ended
    workflow["generators"] = {"capacity": 1}
    workflow["tasks"][1]["payload"]["iterations"] = 60
    for document in documents:
        document["metadata"]["namespace"] = namespace
        await platform.cluster.create(document)
    for name in [document["metadata"]["name"] for document in documents if document["kind"] == "BenchmarkJob"]:
        await until(platform.cluster, BENCHMARK_JOB, namespace, name, has("Complete"), timeout_s=SECONDS,
                    what="Complete")


async def _until_drawn(prometheus: Prometheus) -> list[str]:
    """The panels that stay empty; the last scrapes may still be on their way."""
    deadline = time.monotonic() + DRAWN_S
    while True:
        empty = [
            f"{board.name}: {panel.title}: {query.expression}"
            for board in BOARDS for panel in board.panels for query in panel.queries
            if not panel.is_quiet and not await prometheus.drawn(query.expression, SECONDS)
        ]
        if not empty or time.monotonic() > deadline:
            return empty
        await asyncio.sleep(0.5)


def _quiet_metrics() -> set[str]:
    """Counters with labels exist once something was counted: nothing fails in this class."""
    return {name for board in BOARDS for panel in board.panels if panel.is_quiet for query in panel.queries
            for name in _METRIC.findall(query.expression)}


def test_rules_and_alerts_pass_prometheus_own_checks(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None
    checked = subprocess.run([promtool, "check", "rules", FILES / "alerts.yaml"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    cases = tmp_path / "cases.yaml"
    cases.write_text(yaml.safe_dump({
        "rule_files": [str(FILES / "alerts.yaml")],
        "evaluation_interval": "10s",
        "tests": [_case(name, series, minutes) for name, (series, minutes) in _FIRING.items()],
    }))  # fmt: skip
    done = subprocess.run([promtool, "test", "rules", cases], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(_FIRING) == {alert.name for alert in ALERTS}


_FIRING: dict[str, tuple[dict[str, str], int]] = {
    "EspalierNodeLost": ({'espalier_node_lease_renewed_timestamp_seconds{instance="m"}': "0x60"}, 4),
    "EspalierNodeUnhealthy": ({'espalier_node_healthy{instance="m"}': "0x60"}, 4),
    "EspalierNoLeader": ({'espalier_operator_leader{instance="m"}': "0x60"}, 4),
    "EspalierQueueStuck": ({'espalier_operator_queue_oldest_seconds{instance="m"}': "200x60"}, 4),
    "EspalierCoordinatorAway": ({'espalier_operator_coordinator_away_seconds{instance="m"}': "90x60"}, 4),
    "EspalierTasksWithoutWorker": (
        {'espalier_coordinator_ready_tasks{type="a"}': "5x60", "espalier_coordinator_workers": "0x60"}, 8,
    ),
    "EspalierWorkersVanish": ({'espalier_coordinator_lost_leases_total{instance="m"}': "0+5x60"}, 8),
    "EspalierPlatformFaults": (
        {'espalier_worker_attempts_total{outcome="platformFault"}': "0+1x120",
         'espalier_worker_attempts_total{outcome="done"}': "0+1x120"}, 25,
    ),
}  # fmt: skip
"""Series that must fire each alert, a value per ten seconds, and the minute at which it is looked at."""


def _case(name: str, series: dict[str, str], minutes: int) -> dict[str, object]:
    return {
        "interval": "10s",
        "input_series": [{"series": key, "values": _long(values)} for key, values in series.items()],
        "promql_expr_test": [
            {"expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})', "eval_time": f"{minutes}m",
             "exp_samples": [{"labels": "{}", "value": 1}]},
        ],
    }  # fmt: skip


def _long(values: str) -> str:
    """Constants and ramps over half an hour."""
    return re.sub(r"x\d+$", "x180", values if "+" in values else re.sub(r"^(\d+)x", r"\1+0x", values))
