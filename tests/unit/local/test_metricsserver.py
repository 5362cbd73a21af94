"""metrics-server beside the control plane: what it is told and how the API server finds it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from espalier_local.addresses import Cables
from espalier_local.assets import Assets
from espalier_local.metricsserver import METRICS_SERVER, PORT, objects, spec
from espalier_local.pki import Pki, ensure

CABLES = Cables(7)


def keys(directory: Path) -> Pki:
    return ensure(directory / "pki", address=CABLES.server, port=6443, now=datetime.now(UTC))


def test_its_certificate_has_the_name_that_the_api_server_asks_for(tmp_path: Path) -> None:
    pki = keys(tmp_path)
    service = next(o for o in objects(CABLES, pki) if o["kind"] == "APIService")["spec"]["service"]
    certificate = x509.load_pem_x509_certificate(Path(pki.certificate(METRICS_SERVER)).read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [f"{service['name']}.{service['namespace']}.svc"]


def test_its_service_leads_to_where_it_listens(tmp_path: Path) -> None:
    pki = keys(tmp_path)
    endpoints = next(o for o in objects(CABLES, pki) if o["kind"] == "EndpointSlice")
    flags = spec(Assets({METRICS_SERVER: tmp_path / METRICS_SERVER}), pki, CABLES).argv
    assert [e["addresses"] for e in endpoints["endpoints"]] == [[CABLES.server]]
    assert f"--bind-address={endpoints['endpoints'][0]['addresses'][0]}" in flags
    assert f"--secure-port={PORT}" in flags
    assert [port["port"] for port in endpoints["ports"]] == [PORT]


def test_nodes_are_asked_under_the_clusters_authority(tmp_path: Path) -> None:
    pki = keys(tmp_path)
    flags = spec(Assets({METRICS_SERVER: tmp_path / METRICS_SERVER}), pki, CABLES).argv
    assert f"--kubelet-certificate-authority={pki.certificate('ca')}" in flags
    assert not any("insecure" in flag for flag in flags)
