"""Whatever is sent, a call answers or refuses with a sentence: it never breaks the coordinator."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from espalier_coordinator.access import Identity
from espalier_coordinator.calls.book import Calls, calls_of
from espalier_coordinator.engine import Engine
from espalier_coordinator.health import Health
from espalier_coordinator.host import Host
from espalier_coordinator.routes import ROUTES, Route, call_of
from espalier_coordinator.store.memory import MemoryStore
from espalier_kit.clock import SystemClock
from espalier_kit.errors import EspalierError
from espalier_rpc.jsonform import is_map, to_json

TEXTS = st.sampled_from(["", "a", "b", "default", "t", "{a}", "{", "\0", "done", "ü" * 300, "2", "gpu"])
NUMBERS = st.sampled_from([0, 1, -1, 7, 2**31 - 1, -(2**31)])
REALS = st.sampled_from([0.0, 0.5, -1.0, 1e300, 4e9, float("nan"), float("inf"), float("-inf")])
BYTES = st.sampled_from([b"", b"{}", b'{"a": "{a}"}', b"{broken", b"[1]", b"\xff", b'"text"', b'{"x": 1e999}'])
UNARY = [route for route in ROUTES if not route.is_stream]
ADMIN = Identity("admin", None, is_admin=True)


def single(field: Any) -> st.SearchStrategy[Any]:
    kinds: dict[int, st.SearchStrategy[Any]] = {
        field.TYPE_STRING: TEXTS, field.TYPE_BYTES: BYTES, field.TYPE_BOOL: st.booleans(), field.TYPE_DOUBLE: REALS,
    }
    return kinds.get(field.type, NUMBERS)


@st.composite
def filled(draw: Any, kind: type[Message], depth: int = 0) -> Message:
    """A message of that kind, about half of its fields set."""
    message = kind()
    fields: Any = message.DESCRIPTOR.fields
    for field in fields:
        if depth > 2 or not draw(st.booleans()):
            continue
        target = getattr(message, field.name)
        if is_map(field):
            value = draw(single(field.message_type.fields_by_name["value"]))
            target[draw(TEXTS)] = value
        elif field.type == field.TYPE_MESSAGE:
            made = [draw(filled(field.message_type._concrete_class, depth + 1)) for _ in range(1 + bool(depth == 0))]
            target.extend(made) if field.is_repeated else target.CopyFrom(made[0])
        elif field.is_repeated:
            target.append(draw(single(field)))
        else:
            value = draw(single(field))
            setattr(message, field.name, min(value, 0.05) if field.name == "wait_s" else value)
    return message


@pytest.fixture
async def calls() -> AsyncIterator[tuple[Host, Calls]]:
    clock = SystemClock()
    host = Host(Engine(clock, random.Random(1), epoch="1-x"), MemoryStore(), clock)
    host.writer.start()
    yield host, calls_of(host, Health(host, clock), clock, heartbeat_s=1)
    host.writer.stop(5)


@pytest.mark.parametrize("route", UNARY, ids=[route.rpc for route in UNARY])
@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
async def test_a_call_answers_or_refuses(calls: tuple[Host, Calls], route: Route, data: st.DataObject) -> None:
    host, book = calls
    for rpc in (*PRELUDE, route):
        message = data.draw(filled(rpc.message))
        refusal, answer = await _ask(book, rpc, message)
        assert (refusal is None) == (answer is not None)
        assert refusal is None or (len(str(refusal)) > 10 and refusal.reason)
    host.do(host.engine.tick())
    assert not host.failed.is_set()


async def _ask(book: Calls, rpc: Route, message: Message) -> tuple[EspalierError | None, object]:
    """The refusal, or the answer as JSON; any other error is the coordinator's end."""
    try:
        return None, to_json(await call_of(book, rpc)(ADMIN, message))
    except EspalierError as error:
        return error, None


PRELUDE = [route for route in ROUTES if route.rpc in ("SubmitJob", "RegisterWorker", "PullTasks")]
