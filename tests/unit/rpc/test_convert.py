"""Values survive the wire; wrong messages are refused with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from espalier_kit.errors import Permanent
from espalier_kit.execution import Dependency, ModelEndpoint, Outcome, TaskSpec, TaskState, When
from espalier_rpc import convert
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_rpc.views import Counts, JobRequest, JobUpdate, JobView, TaskOutcome, TaskReport, TaskView

SPEC = TaskSpec(
    key="judge.code/s1", type="grading.judge", payload={"judge": "code", "ü": [1, None]},
    depends_on=(Dependency("execute/s1", When.FINISHED), Dependency("intake/s1")), timeout_s=12.5, retries=0,
    tags=("gpu",),
)
BARE = ModelEndpoint(role="code", url="http://127.0.0.1", model="m")
ENDPOINT = ModelEndpoint(
    role="code", url="https://127.0.0.1:8100", model="m/x", name="mac/m", node="mac", ready=False,
    server_name="ms.ns.svc", ca_pem="PEM", api_key="key",
)
CASES: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "task": (SPEC, convert.task_to_wire, convert.spec_from_wire),
    "bare task": (TaskSpec(key="a", type="t"), convert.task_to_wire, convert.spec_from_wire),
    "endpoint": (ENDPOINT, convert.endpoint_to_wire, convert.endpoint_from_wire),
    "bare endpoint": (BARE, convert.endpoint_to_wire, convert.endpoint_from_wire),
    "job": (
        JobRequest(
            uid="u", namespace="n", name="x", kind="GradingJob", tasks=(SPEC,), endpoints=(ENDPOINT,), priority=-3,
            suspended=True, retries=0, task_timeout_s=5.0,
        ),
        convert.job_request_to_wire, convert.job_request_from_wire,
    ),
    "update of all": (
        JobUpdate(uid="u", priority=0, suspended=False, cancel=True, endpoints=()),
        convert.job_update_to_wire, convert.job_update_from_wire,
    ),
    "update of nothing": (JobUpdate(uid="u"), convert.job_update_to_wire, convert.job_update_from_wire),
    "view": (
        JobView(
            uid="u", namespace="n", name="x", kind="k", state="running", counts=Counts(1, 2, 3, 4, 5, 6),
            tallies={"graded": 2.0}, workers=2, submitted_at=1.5, finished_at=2.5, priority=7, epoch="e", lost_leases=1,
            outcomes=(TaskOutcome(key="a", type="t", state="failed", reason="R", message="m", value={}, attempts=4),),
        ),
        convert.job_view_to_wire, convert.job_view_from_wire,
    ),
    "task view": (
        TaskView(id="i", key="k", type="t", state="done", attempts=1, worker="w", value={"a": 1}),
        convert.task_view_to_wire, convert.task_view_from_wire,
    ),
    "report": (
        TaskReport(
            task_id="i", attempt=2, outcome="done", value={"a": 1}, tallies={"x": 1.0}, children=(SPEC,),
            execution_s=0.5,
        ),
        convert.task_report_to_wire, convert.task_report_from_wire,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_there_and_back(case: tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]) -> None:
    value, to_wire, from_wire = case
    message = to_wire(value)
    assert from_wire(type(message).FromString(message.SerializeToString())) == value


def test_assignment_becomes_a_task_with_inputs_and_deadline() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    message = pb.Assignment(
        lease=pb.Lease(task_id="i", attempt=3), job_uid="u", job_name="x", namespace="n", key="k", type="t",
        payload=b'{"a":1}', timeout_s=60,
        inputs=[convert.outcome_to_wire("before", Outcome(TaskState.FAILED, None, "R", "m"))],
    )
    task = convert.assignment_from_wire(message, now)
    assert (task.id, task.attempt, task.payload) == ("i", 3, {"a": 1})
    assert task.inputs == {"before": Outcome(TaskState.FAILED, None, "R", "m")}
    assert (task.deadline - now).total_seconds() == 60


@pytest.mark.parametrize(
    ("read", "message", "said"),
    [
        (convert.spec_from_wire, pb.TaskSpec(key="a"), "key and type"),
        (convert.spec_from_wire, pb.TaskSpec(key="a", type="t", payload=b"{"), "payload of task 'a' is no JSON"),
        (convert.spec_from_wire, pb.TaskSpec(key="a", type="t", payload=b"[]"), "must be a JSON object"),
        (
            convert.spec_from_wire,
            pb.TaskSpec(key="a", type="t", depends_on=[pb.Dependency(key="b", when="maybe")]), "done or finished",
        ),
        (convert.task_report_from_wire, pb.TaskResult(outcome="fine"), "outcome 'fine'"),
    ],
    ids=["no type", "broken JSON", "a list", "unknown condition", "unknown outcome"],
)
def test_wrong_messages_are_refused(read: Callable[[Any], Any], message: Any, said: str) -> None:
    with pytest.raises(Permanent, match=said):
        read(message)


def test_secrets_of_an_endpoint_are_not_printed() -> None:
    assert "PEM" not in repr(ENDPOINT)
    assert "api_key" not in repr(ENDPOINT)
