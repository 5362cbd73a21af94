"""Values survive the wire; wrong messages are refused with a sentence."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from espalier_coordinator import wire
from espalier_coordinator.messages import Lease, Report, Verdict
from espalier_coordinator.model import Job, JobState, NewTask
from espalier_coordinator.views import JobPicture, TaskPicture
from espalier_kit.digest import canonical_json
from espalier_kit.errors import Permanent
from espalier_kit.execution import Dependency, ModelEndpoint, Outcome, TaskSpec, TaskState, When
from espalier_rpc import convert
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_rpc.views import Counts, JobRequest, JobUpdate, JobView, TaskOutcome, TaskReport, TaskView

SPEC = TaskSpec(
    key="judge.code/s1", type="grading.judge", payload={"judge": "code", "ü": [1, None]},
    depends_on=(Dependency("execute/s1", When.FINISHED), Dependency("intake/s1")), timeout_s=12.5, retries=0,
    tags=("gpu",), resources={"gpu": 1.0}, cache="read-write",
)
BARE = ModelEndpoint(role="code", url="http://127.0.0.1", model="m")
ENDPOINT = ModelEndpoint(
    role="code", url="https://127.0.0.1:8100", model="m/x", name="mac/m", node="mac", ready=False,
    server_name="ms.ns.svc", ca_pem="PEM", api_key="key",
)


@pytest.mark.parametrize("endpoint", [ENDPOINT, BARE], ids=["whole", "bare"])
def test_an_endpoint_survives_the_wire(endpoint: ModelEndpoint) -> None:
    message = convert.endpoint_to_wire(endpoint)
    assert convert.endpoint_from_wire(pb.Endpoint.FromString(message.SerializeToString())) == endpoint


def test_a_submission_arrives_as_it_was_meant() -> None:
    request = JobRequest(
        uid="u", namespace="n", name="x", kind="GradingJob", tasks=(SPEC, TaskSpec(key="a", type="t")),
        endpoints=(ENDPOINT,), priority=-3, suspended=True, retries=0, task_timeout_s=5.0, pool="p", tags=("nightly",),
    )
    message = pb.SubmitJobRequest.FromString(convert.job_request_to_wire(request).SerializeToString())
    assert message.HasField("retries"), "0 is said, not left to the coordinator"
    assert wire.job_from_wire(message) == Job(
        "u", "n", "x", "GradingJob", -3, True, retries=0, task_timeout_s=5.0, pool="p", tags=("nightly",)
    )
    full, bare = (wire.task_from_wire(t) for t in message.tasks)
    assert full == NewTask(
        SPEC.key, SPEC.type, canonical_json(SPEC.payload), SPEC.depends_on, 12.5, 0, ("gpu",), (("gpu", 1.0),),
        "read-write",
    )
    assert bare == NewTask("a", "t", b"{}")
    assert convert.endpoints_from_wire(message.endpoints) == (ENDPOINT,)


def test_an_update_says_only_what_changes() -> None:
    nothing = convert.job_update_to_wire(JobUpdate(uid="u"))
    assert not any(nothing.HasField(name) for name in ("priority", "suspended", "endpoints"))
    whole = convert.job_update_to_wire(JobUpdate(uid="u", priority=0, suspended=False, cancel=True, endpoints=()))
    assert all(whole.HasField(name) for name in ("priority", "suspended", "endpoints"))
    assert (whole.priority, whole.suspended, whole.cancel, len(whole.endpoints.endpoints)) == (0, False, True, 0)


def test_what_the_coordinator_tells_of_a_job_is_read_whole() -> None:
    counts = {"pending": 1, "running": 2, "done": 3, "failed": 4, "skipped": 5, "cancelled": 6}
    task = TaskPicture("i", "a", "t", "failed", 4, "w", "R", "m", b"{}")
    job = Job("u", "n", "x", "k", 7, submitted_at=1.5, finished_at=2.5, pool="p")
    picture = JobPicture(job, JobState.RUNNING, counts, {"graded": 2.0}, (task,), 2, "e", 1, 0.5, "half")
    message = pb.JobView.FromString(wire.job_to_wire(picture).SerializeToString())
    assert convert.job_view_from_wire(message) == JobView(
        uid="u", namespace="n", name="x", kind="k", state="running", counts=Counts(1, 2, 3, 4, 5, 6),
        tallies={"graded": 2.0}, workers=2, submitted_at=1.5, finished_at=2.5, priority=7, epoch="e", lost_leases=1,
        outcomes=(TaskOutcome(key="a", type="t", state="failed", reason="R", message="m", value={}, attempts=4),),
        pool="p", fraction=0.5, message="half",
    )
    assert convert.task_view_from_wire(wire.task_to_wire(task)) == TaskView(
        id="i", key="a", type="t", state="failed", attempts=4, worker="w", reason="R", message="m", value={}
    )


def test_a_result_arrives_as_it_was_meant() -> None:
    report = TaskReport(
        task_id="i", attempt=2, outcome="done", value=b'{"a":1}', tallies={"x": 1.0}, children=(SPEC,), execution_s=0.5
    )
    message = pb.TaskResult.FromString(convert.task_report_to_wire(report).SerializeToString())
    assert wire.report_from_wire(message) == Report(
        Lease("i", 2), Verdict.DONE, value=b'{"a":1}', tallies={"x": 1.0},
        children=(wire.task_from_wire(convert.task_to_wire(SPEC)),), execution_s=0.5,
    )


def test_assignment_becomes_a_task_with_inputs_and_deadline() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    message = pb.Assignment(
        lease=pb.Lease(task_id="i", attempt=3), job_uid="u", job_name="x", namespace="n", key="k", type="t",
        payload=b'{"a":1}', timeout_s=60,
        inputs=[pb.Outcome(key="before", state="failed", reason="R", message="m")],
    )
    task = convert.assignment_from_wire(message, now)
    assert (task.id, task.attempt, task.payload) == ("i", 3, {"a": 1})
    assert task.inputs == {"before": Outcome(TaskState.FAILED, None, "R", "m")}
    assert (task.deadline - now).total_seconds() == 60


@pytest.mark.parametrize("payload", [b"{", b"[]"], ids=["broken JSON", "a list"])
def test_an_assignment_that_cannot_be_read_is_refused(payload: bytes) -> None:
    message = pb.Assignment(key="a", type="t", payload=payload)
    with pytest.raises(Permanent, match="payload of task 'a'"):
        convert.assignment_from_wire(message, datetime(2026, 1, 1, tzinfo=UTC))


def test_an_edge_with_an_unknown_condition_is_refused() -> None:
    with pytest.raises(Permanent, match="done or finished"):
        convert.dependency_from_wire(pb.Dependency(key="b", when="maybe"))


def test_secrets_of_an_endpoint_are_not_printed() -> None:
    assert "PEM" not in repr(ENDPOINT)
    assert "api_key" not in repr(ENDPOINT)
