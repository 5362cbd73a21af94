"""What the local cluster hands to other programs is what they accept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from espalier_local.addresses import Cables, Range
from espalier_local.api import clean_environment, ready_nodes
from espalier_local.assets import Assets
from espalier_local.building import Built
from espalier_local.control import Control
from espalier_local.controlplane import COMPONENTS, specs
from espalier_local.hosts import PROFILES, HostProfile
from espalier_local.imagestore import Image, Store
from espalier_local.layout import Layout
from espalier_local.pki import Pki
from espalier_local.processes import ProcessHost
from espalier_local.recipe import PROGRAMS
from espalier_local.release import CONTAINER_VALUES, LOCAL_VALUES, container_values, helm_environment, values
from espalier_node.settings import parse_file

ROOT = Path(__file__).parents[3]
RANGE = Range(77)


@pytest.mark.parametrize(("k", "profile"), list(enumerate(PROFILES, start=1)), ids=[p.name for p in PROFILES])
def test_the_agent_accepts_its_settings(tmp_path: Path, k: int, profile: HostProfile) -> None:
    host = ProcessHost(profile, k, RANGE, Control(Layout(tmp_path)), tmp_path / "bootstrap.kubeconfig")
    file = tmp_path / "node.yaml"
    file.write_text(yaml.safe_dump(host.settings()))
    settings = parse_file(file)
    assert (settings.name, str(settings.address)) == (profile.name, RANGE.node(k))
    assert RANGE.coordinator in {str(ip) for ip in settings.pod_range} or k != 1


def merged(values: Any, layer: Any) -> Any:
    """As Helm lays one file of values over another."""
    if isinstance(values, dict) and isinstance(layer, dict):
        return values | {key: merged(values.get(key), value) for key, value in layer.items()}
    return layer


def test_computed_values_fit_the_chart() -> None:
    chart = ROOT / "charts" / "espalier"
    images = tuple(Image(f"{program}:1", "sha256:1", "manifest", 1, (), 1, 1) for program in PROGRAMS)
    built = Built("key", Store(Path()), images, {}, Path())
    schema = json.loads((chart / "values.schema.json").read_text())
    for files, computed in (
        ((LOCAL_VALUES,), values(RANGE, ["default"])),
        ((LOCAL_VALUES, CONTAINER_VALUES), container_values(Cables(7), ["default"], built)),
    ):
        found = yaml.safe_load((chart / "values.yaml").read_text())
        for layer in (*(yaml.safe_load((chart / name).read_text()) for name in files), computed):
            found = merged(found, layer)
        jsonschema.validate(found, schema)


def test_every_control_plane_address_is_the_clusters_own(tmp_path: Path) -> None:
    assets = Assets({name: tmp_path / name for name in COMPONENTS})
    for spec in specs(assets, Pki(tmp_path / "pki"), RANGE, tmp_path / "etcd"):
        listens = [flag for flag in spec.argv if flag.startswith(("--bind-address", "--listen", "--advertise"))]
        assert listens
        assert all(RANGE.control_plane in flag for flag in listens)


def test_nothing_of_the_users_reaches_helm(tmp_path: Path) -> None:
    theirs = {"HOME": "/h", "KUBECONFIG": "/theirs", "HELM_PLUGINS": "/p", "HTTPS_PROXY": "x", "SSL_CERT_FILE": "y"}
    found = helm_environment(theirs, tmp_path)
    assert found.keys() == {"HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"}
    assert clean_environment(theirs).keys() == {"HOME", "HELM_PLUGINS"}


def test_ready_nodes_are_those_that_say_so() -> None:
    def node(name: str, status: str) -> dict[str, object]:
        return {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": status}]}}

    assert ready_nodes([node("a", "True"), node("b", "Unknown"), {"metadata": {"name": "c"}}]) == {"a"}
