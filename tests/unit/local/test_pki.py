"""The cluster's certificates and kubeconfigs."""

from __future__ import annotations

import base64
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from espalier_local import pki

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def made(tmp_path: Path) -> pki.Pki:
    return pki.ensure(tmp_path / "pki", address="127.9.0.1", port=6443, now=NOW)


def certificate(path: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(path).read_bytes())


@pytest.mark.parametrize(
    ("leaf", "authority"),
    [
        ("apiserver", "ca"),
        ("apiserver-kubelet-client", "ca"),
        ("front-proxy-client", "front-proxy-ca"),
        ("etcd", "etcd-ca"),
    ],
)
def test_leaves_are_signed_by_their_own_authority(made: pki.Pki, leaf: str, authority: str) -> None:
    certificate(made.certificate(leaf)).verify_directly_issued_by(certificate(made.certificate(authority)))


def test_the_api_server_is_known_by_address_and_name(made: pki.Pki) -> None:
    names = certificate(made.certificate("apiserver")).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert "127.9.0.1" in [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)]
    assert "kubernetes.default.svc" in names.value.get_values_for_type(x509.DNSName)


def test_only_the_administrator_is_a_master(made: pki.Pki) -> None:
    def organisations(name: str) -> list[str]:
        config = yaml.safe_load(made.kubeconfig(name).read_text())
        pem = base64.b64decode(config["users"][0]["user"]["client-certificate-data"])
        subject = x509.load_pem_x509_certificate(pem).subject
        return [str(a.value) for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]

    assert organisations("admin") == ["system:masters"]
    assert organisations("controller-manager") == organisations("scheduler") == []


def test_the_bootstrap_kubeconfig_holds_the_token(made: pki.Pki) -> None:
    config = yaml.safe_load(made.kubeconfig("bootstrap").read_text())
    assert config["users"][0]["user"]["token"] == ".".join(made.bootstrap_token)
    assert config["clusters"][0]["cluster"]["server"] == "https://127.9.0.1:6443"


def test_made_once_then_read_back(made: pki.Pki) -> None:
    before = Path(made.certificate("ca")).read_bytes()
    assert pki.ensure(made.directory, address="127.9.0.1", port=6443, now=NOW) == made
    assert Path(made.certificate("ca")).read_bytes() == before


def test_private_files_are_private(made: pki.Pki) -> None:
    for path in made.directory.iterdir():
        if path.suffix in (".key", ".kubeconfig") or path.name == "bootstrap-token":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
