"""Messages as protobuf: neighbours travel together, order and meaning stay."""

from __future__ import annotations

import pytest

from espalier_coordinator.messages import Ack, Assignment, Cancel, Close, Drain, Lease, Message, Tasks, Verdict, Welcome
from espalier_coordinator.model import NewTask, record_of
from espalier_coordinator.wire import MAX_TASKS_BYTES, hello_from_wire, job_from_wire, report_from_wire, to_wire
from espalier_kit.errors import Permanent
from espalier_rpc.v1 import coordinator_pb2 as pb


def assignment(key: str, payload: bytes = b"") -> Assignment:
    return Assignment(record_of("u", NewTask(key, "t", payload), 1), 1, "job", "ns", 5.0, ())


def kinds(messages: list[Message]) -> list[str]:
    return [m.WhichOneof("kind") or "" for m in to_wire(messages)]


def test_neighbours_of_one_kind_are_one_message() -> None:
    a, b = Lease("a", 1), Lease("b", 2)
    said = list(to_wire([Welcome("e", 5), Ack((a,)), Ack((b,)), Tasks((assignment("x"),)), Tasks((assignment("y"),)),
                         Ack((a,)), Cancel((b,)), Drain("over")]))
    assert [m.WhichOneof("kind") for m in said] == ["welcome", "ack", "tasks", "ack", "cancel", "drain"]
    assert [x.task_id for x in said[1].ack.leases] == ["a", "b"]
    assert [t.key for t in said[2].tasks.tasks] == ["x", "y"]


def test_nothing_follows_a_close() -> None:
    assert kinds([Ack((Lease("a", 1),)), Close("bye"), Drain("never")]) == ["ack"]


def test_large_tasks_travel_in_several_messages() -> None:
    many = Tasks(tuple(assignment(str(n), b"x" * 200_000) for n in range(50)))
    said = list(to_wire([many]))
    assert len(said) > 1
    assert all(m.ByteSize() < 2 * MAX_TASKS_BYTES for m in said)
    assert [t.key for m in said for t in m.tasks.tasks] == [str(n) for n in range(50)]


@pytest.mark.parametrize("hello", [
    pb.Hello(capacity=1, types=["t"]), pb.Hello(worker_id="w", types=["t"]), pb.Hello(worker_id="w", capacity=1),
])
def test_a_hello_that_lacks_something_is_refused(hello: pb.Hello) -> None:
    with pytest.raises(Permanent, match="worker_id, capacity"):
        hello_from_wire(hello, "ns")


@pytest.mark.parametrize("result", [
    pb.TaskResult(lease=pb.Lease(task_id="a", attempt=1), outcome="perhaps"),
    pb.TaskResult(lease=pb.Lease(task_id="a", attempt=1), outcome="done",
                  children=[pb.TaskSpec(key="c", type="t", depends_on=[pb.Dependency(key="x", when="never")])]),
])
def test_a_result_that_cannot_be_meant_is_a_fault_of_the_platform(result: pb.TaskResult) -> None:
    report = report_from_wire(result)
    assert (report.lease, report.verdict, report.reason) == (Lease("a", 1), Verdict.PLATFORM_FAULT, "InvalidResult")
    assert report.message


def test_a_job_with_negative_retries_is_refused() -> None:
    with pytest.raises(Permanent, match="cannot be negative"):
        job_from_wire(pb.SubmitJobRequest(uid="u", namespace="n", name="n", retries=-1))
