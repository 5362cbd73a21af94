"""What the page of compatibility names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from espalier_coordinator import compatibility as coordinator
from espalier_coordinator.settings import CoordinatorSettings
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_worker import compatibility as worker
from espalier_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/reference/compatibility.md").read_text()
_ROOTS = ("services/", "examples/", "operator/", "charts/", "bench/", "docs/")


@pytest.mark.parametrize("path", sorted({p for p in re.findall(r"`([\w./-]+)`", PAGE) if p.startswith(_ROOTS)}))
def test_files_exist(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", PAGE))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs/reference" / link).resolve().exists()


def test_calls_exist() -> None:
    words = re.findall(r"`([A-Z][A-Za-z]+)`", PAGE)
    named = {word for word in words if re.match(r"[A-Z][a-z]+[A-Z]|Heartbeat|Session", word)}
    calls = {method.name for method in pb.DESCRIPTOR.services_by_name["Coordinator"].methods}
    assert named - {"SlowModel", "Degraded"} <= calls
    assert len(named & calls) >= 14


def test_settings_exist_in_both_spellings() -> None:
    ours = {f"ESPALIER_COORDINATOR_{name.upper()}" for name in CoordinatorSettings.model_fields}
    ours |= {f"ESPALIER_WORKER_{name.upper()}" for name in WorkerSettings.model_fields}
    assert set(re.findall(r"`(ESPALIER_[A-Z]+_\w+)`", PAGE)) <= ours
    theirs = {coordinator.SIGN, *coordinator.NAMES, worker.SIGN, worker.BIND, *worker.NAMES}
    assert set(re.findall(r"`([A-Z]+_[A-Z_]*[A-Z])`", PAGE)) - ours <= theirs
    assert set(worker.NAMES.values()) <= {name.upper() for name in WorkerSettings.model_fields}
