"""The authority: made once, issues what is asked, renews in time, never twice."""

from __future__ import annotations

from cryptography import x509

from espalier_kit.clock import ManualClock
from espalier_kube.cluster import CONFIG_MAP, MODEL_SERVER, SECRET, Object
from espalier_kube.fake import FakeCluster
from espalier_kube.objects import metadata, secret_bytes, typed
from espalier_operator.authority import Authority, coordinator_hosts
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
    assert names_of(stored) == ["127.9.0.5", "espalier-coordinator", SETTINGS.coordinator_name]
    told = (await cluster.get(CONFIG_MAP, "espalier-coordinator", "espalier-system"))["data"]
    assert told == {
        "web": SETTINGS.coordinator_web, "grpc": SETTINGS.coordinator, "name": SETTINGS.coordinator_name,
        "ca.crt": made.ca_pem,
    }


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
    assert hosts == ("c.example", "espalier-coordinator", SETTINGS.coordinator_name, "fd00::5")
