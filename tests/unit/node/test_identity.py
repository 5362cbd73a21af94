"""Kubeconfigs and certificates of the agent."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from espalier_kit.certificates import issue, make_authority
from espalier_kit.clock import SystemClock
from espalier_kit.errors import Misconfigured
from espalier_node import agent, identity
from espalier_node.settings import NodeSettings

NOW = SystemClock().now()
AUTHORITY = make_authority("test", NOW)
PAIR = issue(AUTHORITY, "system:node:linux-1", NOW, organisations=["system:nodes"], is_client=True)
SERVING = issue(AUTHORITY, "system:node:linux-1", NOW, hosts=["linux-1", "127.77.1.1"], is_server=True)
ELSEWHERE = issue(AUTHORITY, "system:node:linux-1", NOW, hosts=["linux-1", "127.77.9.1"], is_server=True)
TEMPLATE = {
    "clusters": [
        {"name": "local", "cluster": {"server": "https://127.77.0.1:6443", "certificate-authority": "ca.crt"}}
    ],
    "users": [{"name": "bootstrap", "user": {"token": "abcdef.0123456789abcdef"}}],
}


def settings(directory: Path) -> NodeSettings:
    return NodeSettings.model_validate({
        "name": "linux-1", "address": "127.77.1.1", "state_dir": directory / "state",
        "bootstrap_kubeconfig": directory / "bootstrap",
    })  # fmt: skip


def write(path: Path) -> Path:
    path.write_text(yaml.safe_dump(identity.own_kubeconfig(TEMPLATE, "linux-1", PAIR)))
    return path


def test_the_own_kubeconfig_holds_our_certificate_and_no_token(tmp_path: Path) -> None:
    path = write(tmp_path / "kubeconfig")
    assert "abcdef" not in path.read_text()
    assert identity.client_certificate(path) == PAIR.certificate
    assert identity.api_server(path) == ("127.77.0.1", "6443")


def test_the_authority_may_be_a_file_or_inside(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.certificate)
    path = write(tmp_path / "kubeconfig")
    assert identity.cluster_ca(path) == AUTHORITY.certificate
    values = yaml.safe_load(path.read_text())
    data = base64.b64encode(b"inside").decode()
    values["clusters"][0]["cluster"] = {"server": "https://x", "certificate-authority-data": data}
    path.write_text(yaml.safe_dump(values))
    assert identity.cluster_ca(path) == b"inside"
    assert identity.api_server(path) == ("x", "443")


@pytest.mark.parametrize("text", ["", "users: []", "{", "users: [{user: {token: x}}]"])
def test_a_kubeconfig_without_our_certificate_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    assert identity.client_certificate(path) is None


def test_a_serving_certificate_is_kept_with_its_key_for_this_address(tmp_path: Path) -> None:
    pki = tmp_path / "state" / "pki"
    pki.mkdir(parents=True)
    found = [identity.read_serving(settings(tmp_path))]
    for pem in (SERVING.certificate + SERVING.key, SERVING.certificate, PAIR.certificate + PAIR.key,
                ELSEWHERE.certificate + ELSEWHERE.key):  # fmt: skip
        (pki / "serving.pem").write_bytes(pem)
        found.append(identity.read_serving(settings(tmp_path)))
    assert found == [None, SERVING, None, None, None]


async def test_a_good_identity_is_used_again(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    write(tmp_path / "state" / "kubeconfig")
    assert await identity.ensure(settings(tmp_path), SystemClock())


async def test_no_identity_and_no_bootstrap_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"bootstrap_kubeconfig .* does not exist"):
        await identity.ensure(settings(tmp_path), SystemClock())


def test_one_agent_per_state_directory(tmp_path: Path) -> None:
    with agent.sole_agent(settings(tmp_path)) as is_restart:
        assert not is_restart
        with pytest.raises(Misconfigured, match="another agent works in"), agent.sole_agent(settings(tmp_path)):
            pass
    with agent.sole_agent(settings(tmp_path)) as is_restart:
        assert is_restart
