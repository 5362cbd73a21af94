"""Sockets that killed programs leave: whose they are, and whether anybody still listens."""

from __future__ import annotations

import socket
from pathlib import Path

from espalier_local import remains

CONTAINERD = Path("/here/nodes/linux-1/containerd.sock")
ID = "ab" * 32
LOG = f'level=info msg="RunPodSandbox returns sandbox id \\"{ID}\\""\nmsg="image sha256:{"cd" * 31}"\n{ID}\n'


def test_a_shims_socket_is_named_by_containerd_namespace_and_id() -> None:
    (found,) = remains.shim_addresses(CONTAINERD, LOG)
    # printf /here/nodes/linux-1/containerd.sock/k8s.io/abab…ab | sha256sum
    assert found == "unix:///run/containerd/s/fd976b3e34ed198a69a18b64941d83510fb287cb47e9966dd37fe719f0872045"


def test_another_hosts_shims_have_other_sockets() -> None:
    other = Path("/here/nodes/linux-2/containerd.sock")
    assert not set(remains.shim_addresses(CONTAINERD, LOG)) & set(remains.shim_addresses(other, LOG))


def test_only_sockets_of_shims_are_removed(tmp_path: Path) -> None:
    kept = tmp_path / "a-users.sock"
    kept.touch()
    remains.remove_shim_sockets([f"unix://{kept}\n"])
    assert kept.exists()


def test_a_socket_goes_when_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "kubelet.sock"
    assert not remains.remove_dead_socket(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert not remains.remove_dead_socket(path)
        assert path.exists()
    assert remains.remove_dead_socket(path)
    assert not path.exists()
