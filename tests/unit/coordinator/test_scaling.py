"""Pending work as the API server's aggregator and KEDA ask for it: over real TLS and real gRPC."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from espalier_coordinator.engine import Engine
from espalier_coordinator.host import Host
from espalier_coordinator.model import Job, NewTask
from espalier_coordinator.scaling import documents
from espalier_coordinator.scaling.keda import SERVICE, KedaScaler
from espalier_coordinator.scaling.pending import METRIC, Pending
from espalier_coordinator.scaling.server import MetricsApi, metrics_api
from espalier_coordinator.scaling.trust import Trust, trust_of
from espalier_coordinator.settings import CoordinatorSettings
from espalier_coordinator.store.memory import MemoryStore
from espalier_kit.certificates import KeyPair, issue, make_authority
from espalier_kit.clock import SystemClock
from espalier_kit.errors import Misconfigured, Permanent
from espalier_kit.settings import load
from espalier_rpc.server import Server, TlsFiles
from espalier_rpc.v1 import externalscaler_pb2 as pb
from espalier_rpc.v1.externalscaler_pb2_grpc import ExternalScalerStub, add_ExternalScalerServicer_to_server

if TYPE_CHECKING:
    from espalier_rpc.v1.externalscaler_pb2_grpc import ExternalScalerAsyncStub

NOW = datetime.now(UTC)
OURS = make_authority("ours", NOW)
AGGREGATORS = make_authority("front proxy", NOW)
STRANGERS = make_authority("strangers", NOW)
NAME = "espalier-scaling.espalier-system.svc"
LIST = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/any/{METRIC}"


def write_certificate(folder: Path) -> None:
    pair = issue(OURS, NAME, NOW, hosts=[NAME, "127.0.0.1"], is_server=True)
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    """An engine with five tasks in pool `gpu`."""
    clock = SystemClock()
    made = Host(Engine(clock, random.Random(1), epoch="1"), MemoryStore(), clock)
    made.writer.start()
    await made.settle(made.engine.submit(Job("u", "ns", "n", pool="gpu"), [NewTask(str(n), "t") for n in range(5)]))
    yield made
    made.writer.stop(5)


@pytest.fixture
def pending(host: Host) -> Pending:
    return Pending(host, frozenset({"gpu", "cpu"}))


@dataclass
class Served:
    """The metrics API as a caller with one certificate or another sees it."""

    api: MetricsApi
    folder: Path

    def caller(self, authority: KeyPair | None = None, name: str = "front-proxy-client") -> httpx.AsyncClient:
        context = ssl.create_default_context(cadata=OURS.certificate.decode())
        if authority is not None:
            pair = issue(authority, name, NOW, is_client=True)
            path = self.folder / f"{name}.pem"
            path.write_bytes(pair.certificate + pair.key)
            context.load_cert_chain(path)
        return httpx.AsyncClient(base_url=f"https://127.0.0.1:{self.api.port}", verify=context, trust_env=False)


@pytest.fixture
async def served(pending: Pending, tmp_path: Path) -> AsyncIterator[Served]:
    write_certificate(tmp_path)
    api = MetricsApi(pending, SystemClock(), host="127.0.0.1", port=0, files=TlsFiles.in_folder(tmp_path))
    await api.open(Trust(AGGREGATORS.certificate.decode(), frozenset({"front-proxy-client"})))
    yield Served(api, tmp_path)
    await api.close()


async def test_the_aggregator_reads_discovery_and_the_metric(served: Served) -> None:
    async with served.caller(AGGREGATORS) as http:
        groups = (await http.get("/apis")).json()["groups"]
        assert [group["preferredVersion"]["groupVersion"] for group in groups] == ["external.metrics.k8s.io/v1beta1"]
        (resource,) = (await http.get("/apis/external.metrics.k8s.io/v1beta1")).json()["resources"]
        assert (resource["name"], resource["namespaced"], resource["verbs"]) == (METRIC, True, ["get"])
        assert (await http.get("/apis/external.metrics.k8s.io")).json()["kind"] == "APIGroup"
        assert (await http.get("/openapi/v2")).json()["swagger"] == "2.0"
        assert (await http.get("/openapi/v3")).status_code == 200
        found = (await http.get(LIST, params={"labelSelector": "pool=gpu"})).json()
    assert found["kind"] == "ExternalMetricValueList"
    (item,) = found["items"]
    assert (item["metricName"], item["metricLabels"], item["value"]) == (METRIC, {"pool": "gpu"}, "5")
    told = datetime.fromisoformat(item["timestamp"])
    assert abs((datetime.now(UTC) - told).total_seconds()) < 5


async def test_nobody_but_the_aggregator_is_answered(served: Served) -> None:
    async with served.caller() as nobody:
        answer = await nobody.get(LIST, headers={"X-Remote-User": "system:admin"})
        assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")
    async with served.caller(AGGREGATORS, "kube-scheduler") as another:
        answer = await another.get(LIST)
        assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")
        assert "'kube-scheduler' is not the API server's aggregator" in answer.json()["message"]
    async with served.caller(STRANGERS) as stranger:
        with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
            await stranger.get(LIST)


async def test_what_is_not_there_is_a_status_the_api_server_understands(served: Served) -> None:
    async with served.caller(AGGREGATORS) as http:
        for method, path, code in (
            ("GET", LIST.replace(METRIC, "another_metric"), 404), ("POST", LIST, 405), ("GET", "/", 404),
        ):  # fmt: skip
            answer = await http.request(method, path)
            assert answer.status_code == code
            assert (answer.json()["kind"], answer.json()["code"]) == ("Status", code)


async def test_a_renewed_certificate_is_served_without_a_restart(served: Served) -> None:
    async def shown() -> str:
        return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", served.api.port))

    before = await shown()
    write_certificate(served.folder)
    served.api.renew()
    assert await shown() != before
    (served.folder / "tls.crt").write_text("half a certificate")
    served.api.renew()
    async with served.caller(AGGREGATORS) as http:
        assert (await http.get("/healthz")).status_code == 200


async def test_another_authority_of_the_api_server_closes_the_door_to_the_one_before(served: Served) -> None:
    async with served.caller(AGGREGATORS) as before:
        assert (await before.get("/apis")).status_code == 200
        await served.api.open(Trust(STRANGERS.certificate.decode(), frozenset()))
        with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
            await before.get("/apis")
    async with served.caller(STRANGERS, "anyone") as after:
        assert (await after.get("/apis")).status_code == 200, "no names: every certificate of the authority counts"


async def test_a_certificate_that_is_named_by_its_files_will_do(host: Host, pending: Pending) -> None:
    """Outside a cluster the API server is what is missing, not the folder of the certificate."""
    variables = {"DATA": "/data", "TLS_CERT": "/c.pem", "TLS_KEY": "/k.pem", "SCALING_PORT": "6443"}
    settings = load(CoordinatorSettings, "coordinator", {f"ESPALIER_COORDINATOR_{k}": v for k, v in variables.items()})
    with pytest.raises(Misconfigured, match="Kubernetes credentials"):
        async with metrics_api(settings, host, pending, SystemClock()):
            pass


def test_trust_is_what_the_api_server_publishes() -> None:
    data = {"requestheader-client-ca-file": "PEM", "requestheader-allowed-names": '["a","b"]'}
    assert trust_of({"data": data}) == Trust("PEM", frozenset({"a", "b"}))
    assert trust_of({"data": {"requestheader-client-ca-file": "PEM"}}).names == frozenset()
    with pytest.raises(Permanent, match="has no aggregation layer"):
        trust_of({"data": {"client-ca-file": "PEM"}})


@pytest.mark.parametrize(("selector", "pools"), [
    ("", ["cpu", "gpu"]), ("pool=gpu", ["gpu"]), ("pool==gpu", ["gpu"]), ("pool in (cpu,tpu)", ["cpu"]),
    ("pool!=cpu", ["gpu"]), ("pool=tpu", []), ("queue=gpu", []),
])
def test_a_label_selector_chooses_pools(selector: str, pools: list[str]) -> None:
    found = documents.values({"cpu": 0, "gpu": 12_000}, selector, NOW)
    assert [item["metricLabels"]["pool"] for item in found["items"]] == pools


def test_prometheus_reads_the_same_number(pending: Pending) -> None:
    registry = CollectorRegistry()
    registry.register(pending)
    text = generate_latest(registry).decode()
    assert f'{METRIC}{{pool="gpu"}} 5.0' in text
    assert f'{METRIC}{{pool="cpu"}} 0.0' in text


# ---------------------------------------------------------------- KEDA


@pytest.fixture
async def keda(pending: Pending, tmp_path: Path) -> AsyncIterator[ExternalScalerAsyncStub]:
    write_certificate(tmp_path)
    server = Server("127.0.0.1:0", TlsFiles.in_folder(tmp_path), [SERVICE])
    add_ExternalScalerServicer_to_server(KedaScaler(pending), server.grpc)
    await server.start()
    tls = grpc.ssl_channel_credentials(OURS.certificate)
    async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", tls) as channel:
        yield ExternalScalerStub(channel)
    await server.stop(0)


def trigger(pool: str = "gpu", **more: str) -> pb.ScaledObjectRef:
    return pb.ScaledObjectRef(name="pool", namespace="espalier-system", scalerMetadata={"pool": pool, **more})


async def test_keda_learns_the_target_and_the_value(keda: ExternalScalerAsyncStub) -> None:
    spec = (await keda.GetMetricSpec(trigger(targetPerWorker="16"))).metricSpecs
    assert [(s.metricName, s.targetSize, s.targetSizeFloat) for s in spec] == [(METRIC, 16, 16.0)]
    values = (await keda.GetMetrics(pb.GetMetricsRequest(scaledObjectRef=trigger(), metricName=METRIC))).metricValues
    assert [(v.metricName, v.metricValue, v.metricValueFloat) for v in values] == [(METRIC, 5, 5.0)]
    assert (await keda.IsActive(trigger())).result is True
    assert (await keda.IsActive(trigger("cpu"))).result is False


async def test_keda_hears_when_work_comes_and_when_it_is_gone(keda: ExternalScalerAsyncStub, host: Host) -> None:
    call = keda.StreamIsActive(trigger("cpu"))
    assert (await call.read()).result is False
    await host.settle(host.engine.submit(Job("v", "ns", "v", pool="cpu"), [NewTask("a", "t")]))
    assert (await call.read()).result is True
    await host.settle(host.engine.submit(Job("v", "ns", "v", pool="cpu"), [NewTask("b", "t")]))
    await host.settle(host.engine.delete("v"))
    assert (await call.read()).result is False, "more of the same is not told"
    call.cancel()


@pytest.mark.parametrize(("asked", "code", "words"), [
    (trigger("tpu", targetPerWorker="16"), grpc.StatusCode.NOT_FOUND, "set the trigger's metadata pool to one of cpu"),
    (pb.ScaledObjectRef(name="x"), grpc.StatusCode.NOT_FOUND, "no worker pool ''"),
    (trigger(), grpc.StatusCode.INVALID_ARGUMENT, "targetPerWorker is ''"),
    (trigger(targetPerWorker="0"), grpc.StatusCode.INVALID_ARGUMENT, "a number of tasks, such as 16"),
    (trigger(targetPerWorker="many"), grpc.StatusCode.INVALID_ARGUMENT, "targetPerWorker is 'many'"),
])
async def test_keda_is_told_what_its_trigger_lacks(
    keda: ExternalScalerAsyncStub, asked: pb.ScaledObjectRef, code: grpc.StatusCode, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await keda.GetMetricSpec(asked)
    assert caught.value.code() is code
    assert words in (caught.value.details() or "")


async def test_keda_may_ask_for_one_metric_only(keda: ExternalScalerAsyncStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await keda.GetMetrics(pb.GetMetricsRequest(scaledObjectRef=trigger(), metricName="s0-cpu"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
