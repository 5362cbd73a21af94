"""JSON that no interpreter likes to read is refused with a sentence; it never ends the coordinator."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
from google.protobuf.message import Message

from espalier_coordinator.access import Identity
from espalier_coordinator.calls.book import Calls, calls_of
from espalier_coordinator.engine import Engine
from espalier_coordinator.health import Health
from espalier_coordinator.host import Host
from espalier_coordinator.routes import ROUTES, call_of
from espalier_coordinator.store.memory import MemoryStore
from espalier_kit.clock import SystemClock
from espalier_kit.errors import Permanent
from espalier_rpc.jsonform import embedded
from espalier_rpc.v1 import coordinator_pb2 as pb

ADMIN = Identity("admin", None, is_admin=True)
DEEP = b'{"a":' * 100_000
NESTED = b'{"a":' * 490 + b'"{p}"' + b"}" * 490
UTF_16 = '{"a": "{p}"}'.encode("utf-16")


def template(payload: bytes) -> pb.Template:
    task = pb.TaskSpec(key="k", type="t", payload=payload)
    return pb.Template(name="t", namespace="ns", tasks=[task], required=["p"])


@pytest.fixture
async def calls() -> AsyncIterator[Calls]:
    clock = SystemClock()
    host = Host(Engine(clock, random.Random(1), epoch="1-x"), MemoryStore(), clock)
    host.writer.start()
    book = calls_of(host, Health(host, clock), clock)
    hello = pb.RegisterWorkerRequest(worker_id="w", capacity=1, types=["t"], namespace="ns")
    await book.workers.register(ADMIN, hello)
    await book.templates.put(ADMIN, template(b'{"a": "{p:json}"}'))
    yield book
    host.writer.stop(5)


@pytest.mark.parametrize(("rpc", "message"), [
    ("SubmitJob", pb.SubmitJobRequest(namespace="ns", tasks=[pb.TaskSpec(key="k", type="t", payload=DEEP)])),
    ("SubmitJob", pb.SubmitJobRequest(namespace="ns", tasks=[pb.TaskSpec(key="k", type="t", payload=UTF_16)])),
    ("SubmitJob", pb.SubmitJobRequest(namespace="ns", template="t", parameters={"p": "[" * 100_000})),
    ("PutTemplate", template(DEEP)),
    ("PutTemplate", template(NESTED)),
    ("PutTemplate", template(UTF_16)),
    ("ReportResult", pb.ReportResultRequest(worker_id="w", task_id="x", attempt=1, success=True, result=DEEP)),
], ids=["payload", "UTF-16", "parameter", "template", "template to fill in", "template in UTF-16", "result"])
async def test_a_call_refuses_it(calls: Calls, rpc: str, message: Message) -> None:
    route = next(route for route in ROUTES if route.rpc == rpc)
    with pytest.raises(Permanent, match="JSON") as refused:
        await call_of(calls, route)(ADMIN, message)
    assert len(str(refused.value)) < 1000


def test_a_stored_value_of_that_kind_is_shown_as_text() -> None:
    assert embedded(DEEP) == DEEP.decode()
