"""Which call answers which path: the one table behind REST, its OpenAPI document and the tests that compare both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, cast

from google.protobuf.message import Message

from espalier_coordinator.access import Identity
from espalier_coordinator.calls.book import Calls
from espalier_rpc.v1 import coordinator_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["Coordinator"]


@dataclass(frozen=True, slots=True)
class Route:
    """A path, the rpc of the same meaning, and where in `Calls` it is answered."""

    method: str
    path: str
    rpc: str
    call: str

    @property
    def message(self) -> type[Message]:
        """What the call takes."""
        return cast(type[Message], getattr(pb, SERVICE.methods_by_name[self.rpc].input_type.name))

    @property
    def answer(self) -> str:
        """Name of the message that it gives."""
        return SERVICE.methods_by_name[self.rpc].output_type.name

    @property
    def is_stream(self) -> bool:
        return bool(SERVICE.methods_by_name[self.rpc].server_streaming)

    @property
    def does_change(self) -> bool:
        """Whether the engine's state may differ afterwards."""
        return self.method != "GET"

    @property
    def has_body(self) -> bool:
        """Other calls take their fields from the query."""
        return self.method in ("POST", "PUT", "PATCH")


ROUTES = (
    Route("POST", "/v1/jobs", "SubmitJob", "jobs.submit"),
    Route("GET", "/v1/jobs", "ListJobs", "jobs.list_jobs"),
    Route("GET", "/v1/jobs:watch", "WatchJobs", "jobs.watch_all"),
    Route("POST", "/v1/jobs/{job_id}:cancel", "CancelJob", "jobs.cancel"),
    Route("GET", "/v1/jobs/{job_id}:watch", "WatchJob", "jobs.watch"),
    Route("POST", "/v1/jobs/{job_uid}:retry", "RetryTasks", "letters.retry"),
    Route("GET", "/v1/jobs/{job_id}/status", "GetJobStatus", "jobs.status"),
    Route("GET", "/v1/jobs/{job_uid}/tasks", "ListTasks", "jobs.tasks"),
    Route("GET", "/v1/jobs/{uid}", "GetJob", "jobs.get"),
    Route("PATCH", "/v1/jobs/{uid}", "UpdateJob", "jobs.update"),
    Route("DELETE", "/v1/jobs/{uid}", "DeleteJob", "jobs.delete"),
    Route("GET", "/v1/dead-letters", "ListDeadLetters", "letters.list_letters"),
    Route("POST", "/v1/workers", "RegisterWorker", "workers.register"),
    Route("GET", "/v1/workers", "ListWorkers", "fleet.list_workers"),
    Route("POST", "/v1/workers/{worker_id}:heartbeat", "Heartbeat", "workers.heartbeat"),
    Route("POST", "/v1/workers/{worker_id}:pull", "PullTasks", "workers.pull"),
    Route("POST", "/v1/workers/{worker_id}:drain", "DrainWorker", "fleet.drain"),
    Route("DELETE", "/v1/workers/{worker_id}", "DeregisterWorker", "workers.deregister"),
    Route("POST", "/v1/tasks/{task_id}:report", "ReportResult", "workers.report"),
    Route("GET", "/v1/stats", "GetClusterStats", "fleet.stats"),
    Route("GET", "/v1/health", "HealthCheck", "fleet.health"),
    Route("GET", "/v1/templates", "ListTemplates", "templates.list_templates"),
    Route("PUT", "/v1/templates/{namespace}/{name}", "PutTemplate", "templates.put"),
    Route("GET", "/v1/templates/{namespace}/{name}", "GetTemplate", "templates.get"),
    Route("DELETE", "/v1/templates/{namespace}/{name}", "DeleteTemplate", "templates.delete"),
    Route("GET", "/v1/reservations", "ListReservations", "reservations.list_reservations"),
    Route("PUT", "/v1/reservations/{namespace}/{name}", "Reserve", "reservations.reserve"),
    Route("DELETE", "/v1/reservations/{namespace}/{name}", "ReleaseReservation", "reservations.release"),
)


def call_of(calls: Calls, route: Route) -> Callable[[Identity, Any], Awaitable[Message]]:
    """The function that answers a unary route."""
    return cast(Callable[[Identity, Any], Awaitable[Message]], attrgetter(route.call)(calls))


def stream_of(calls: Calls, route: Route) -> Callable[[Identity, Any], AsyncIterator[Message]]:
    """The function that answers a route with many messages."""
    return cast(Callable[[Identity, Any], AsyncIterator[Message]], attrgetter(route.call)(calls))
