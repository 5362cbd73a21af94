"""The authority: made once, issues what is asked, renews in time, never twice."""

from __future__ import annotations

import base64

from cryptography import x509

from espalier_kit.clock import ManualClock
from espalier_kube.cluster import API_SERVICE, CONFIG_MAP, MODEL_SERVER, SECRET, Object
from espalier_kube.fake import FakeCluster
from espalier_kube.objects import metadata, secret_bytes, typed
from espalier_operator.authority import METRICS_API, Authority, coordinator_hosts
from tests.support.operator_world import operator_settings

SETTINGS = operator_settings()


async def authority(cluster: FakeCluster, clock: ManualClock) -> Authority:
    made = Authority(cluster, SETTINGS, clock)
    await made.load()
    return made


def names_of(stored: Object) -> list[str]:
    certificate = x509.load_pem_x509_certificate(secret_bytes(stored, "tls.crt") or b"")
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(str(name.value) for name in found)


async def test_the_authority_is_made_once_and_read_by_the_next_process() -> None:
    cluster, clock = FakeCluster(), ManualClock()
    first = await authority(cluster, clock)
    assert (await authority(cluster, clock)).ca_pem == first.ca_pem


async def test_the_coordinators_certificate_carries_every_name_it_is_dialled_by() -> None:
    cluster, clock = FakeCluster(clock=ManualClock()), ManualClock()
    made = await authority(cluster, clock)
    await made.ensure_coordinator()
    stored = await cluster.get(SECRET, "espalier-coordinator-tls", "espalier-system")
    assert stored["type"] == "kubernetes.io/tls"
    scaling = "espalier-scaling.espalier-system.svc"
    assert names_of(stored) == ["127.9.0.5", "espalier-coordinator", SETTINGS.coordinator_name, scaling]
    told = (await cluster.get(CONFIG_MAP, "espalier-coordinator", "espalier-system"))["data"]
    assert told == {
        "web": SETTINGS.coordinator_web, "grpc": SETTINGS.coordinator, "name": SETTINGS.coordinator_name,
        "ca.crt": made.ca_pem,
    }


def api_service(name: str, namespace: str = "espalier-system") -> Object:
    service = {"name": name, "namespace": namespace, "port": 8443}
    spec = {"service": service, "group": "external.metrics.k8s.io"}
    return typed(API_SERVICE, metadata(METRICS_API, None), spec=spec)


async def test_the_api_server_learns_whose_certificate_the_metrics_api_shows() -> None:
    cluster, clock = FakeCluster(), ManualClock()
    made = await authority(cluster, clock)
    await made.ensure_metrics_api()  # nothing is registered: nothing to do
    await cluster.create(api_service("espalier-scaling"))
    await made.ensure_metrics_api()
    stored = await cluster.get(API_SERVICE, METRICS_API)
    assert base64.b64decode(stored["spec"]["caBundle"]).decode() == made.ca_pem
    await made.ensure_metrics_api()
    assert await cluster.get(API_SERVICE, METRICS_API) == stored, "written once"


async def test_an_api_service_of_somebody_else_is_left_alone() -> None:
    cluster, clock = FakeCluster(), ManualClock()
    made = await authority(cluster, clock)
    await cluster.create(api_service("prometheus-adapter", "monitoring"))
    await made.ensure_metrics_api()
    assert "caBundle" not in (await cluster.get(API_SERVICE, METRICS_API))["spec"]


async def test_certificates_are_kept_while_good_and_renewed_before_their_end() -> None:
    cluster, clock = FakeCluster(), ManualClock()
    made = await authority(cluster, clock)
    versions = []
    for days in (0, 1, 300):
        await clock.advance(days * 86400)
        await made.ensure_coordinator()
        stored = await cluster.get(SECRET, "espalier-coordinator-tls", "espalier-system")
        versions.append(stored["metadata"]["resourceVersion"])
    assert versions[0] == versions[1] != versions[2]


async def test_a_change_of_address_issues_a_new_certificate() -> None:
    cluster, clock = FakeCluster(), ManualClock()
    await (await authority(cluster, clock)).ensure_coordinator()
    moved = Authority(cluster, operator_settings(coordinator="127.9.0.77:50051"), clock)
    await moved.load()
    await moved.ensure_coordinator()
    assert "127.9.0.77" in names_of(await cluster.get(SECRET, "espalier-coordinator-tls", "espalier-system"))


async def test_a_model_server_gets_a_certificate_and_a_key_of_its_own() -> None:
    cluster, clock = FakeCluster(), ManualClock()
    made = await authority(cluster, clock)
    server = await cluster.create(typed(MODEL_SERVER, metadata("qwen", "course"), spec={}))
    key = await made.ensure_server(server)
    assert len(key) >= 32
    assert names_of(await cluster.get(SECRET, "qwen-tls", "course")) == ["qwen.course.svc"]
    assert secret_bytes(await cluster.get(SECRET, "qwen-key", "course"), "api-key") == key.encode()
    assert await (await authority(cluster, clock)).ensure_server(server) == key
    await cluster.delete(MODEL_SERVER, "qwen", "course")
    assert (await cluster.list(SECRET, "course")).items == ()


def test_hosts_come_from_settings_with_and_without_ports_and_brackets() -> None:
    hosts = coordinator_hosts(operator_settings(coordinator="[fd00::5]:50051", coordinator_web="https://c.example:8443"))
    scaling = "espalier-scaling.espalier-system.svc"
    assert hosts == ("c.example", "espalier-coordinator", SETTINGS.coordinator_name, scaling, "fd00::5")
