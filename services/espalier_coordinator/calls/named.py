"""Dead letters, templates, reservations."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

from espalier_coordinator.access import Identity
from espalier_coordinator.archive import Archive
from espalier_coordinator.calls.jobs import DEFAULT_NAMESPACE, JobCalls, check_payloads
from espalier_coordinator.host import Host
from espalier_coordinator.reservations import Reservation
from espalier_coordinator.store import DeadLetter
from espalier_coordinator.views import letter_picture
from espalier_coordinator.wire import (
    check_namespace,
    reservation_from_wire,
    reservation_to_wire,
    task_to_wire,
    template_from_wire,
    template_to_wire,
)
from espalier_kit.errors import Forbidden, NotFound, Permanent
from espalier_rpc.v1 import coordinator_pb2 as pb

PAGE = 1000
"""Dead letters per answer where the caller names no limit, and at most."""


class LetterCalls:
    """Failed tasks: what they died of, and once more."""

    def __init__(self, host: Host, jobs: JobCalls) -> None:
        self._host = host
        self._jobs = jobs
        self._archive = Archive(host)

    async def list_letters(self, caller: Identity, request: pb.ListDeadLettersRequest) -> pb.ListTasksResponse:
        """Failed tasks that can be retried, oldest first, of one job or of all; `next` goes on."""
        if request.namespace:
            caller.require_namespace(request.namespace)
        if request.job_uid:
            await self._jobs.visible(caller, request.job_uid)
        limit = min(request.limit or PAGE, PAGE)
        if limit < 1:
            raise Permanent("limit cannot be negative", reason="InvalidPage")
        page = await self._archive.dead_letters(
            request.namespace or caller.reach_alone, job_uid=request.job_uid, after=_position(request.after),
            limit=limit,
        )
        shown = [letter for letter in page if caller.may_see(letter.namespace)]
        return pb.ListTasksResponse(
            tasks=[task_to_wire(letter_picture(letter)) for letter in shown], next=_next(page, limit)
        )

    async def retry(self, caller: Identity, request: pb.RetryTasksRequest) -> pb.RetryTasksResponse:
        """Failed tasks come back with fresh retries, and with them what was skipped because of them."""
        await self._jobs.steerable(caller, request.job_uid)
        count, effects = self._host.engine.retry(request.job_uid, request.keys)
        await self._host.settle(effects)
        return pb.RetryTasksResponse(retried=count)


def _position(after: str) -> int:
    if not after:
        return 0
    if not re.fullmatch(r"[0-9]{1,18}", after):
        raise Permanent(f"after={after!r}: give what `next` of the page before said", reason="InvalidPage")
    return int(after)


def _next(page: tuple[DeadLetter, ...], limit: int) -> str:
    return str(page[-1].task.record.sequence) if len(page) == limit else ""


class TemplateCalls:
    """Tasks under a name."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def put(self, caller: Identity, request: pb.Template) -> pb.Template:
        """Keep a template; another one under the name is its next revision."""
        namespace = request.namespace or caller.namespace or DEFAULT_NAMESPACE
        caller.require_submit(namespace)
        check_namespace(namespace)
        named = pb.Template()
        named.CopyFrom(request)
        named.namespace = namespace
        template = template_from_wire(named)
        check_payloads(template.tasks)
        await self._host.settle(self._host.engine.put_template(template))
        return template_to_wire(self._host.engine.template(namespace, request.name))

    async def get(self, caller: Identity, request: pb.TemplateName) -> pb.Template:
        """A template with its tasks."""
        caller.require_namespace(request.namespace)
        return template_to_wire(self._host.engine.template(request.namespace, request.name))

    async def list_templates(self, caller: Identity, request: pb.ListTemplatesRequest) -> pb.ListTemplatesResponse:
        """The templates of a namespace, or of all that the caller may see."""
        if request.namespace:
            caller.require_namespace(request.namespace)
        return pb.ListTemplatesResponse(templates=[
            template_to_wire(t) for (namespace, _), t in sorted(self._host.engine.templates.items())
            if request.namespace in ("", namespace) and caller.may_see(namespace)
        ])

    async def delete(self, caller: Identity, request: pb.TemplateName) -> pb.DeleteTemplateResponse:
        """Forget a template; jobs that came from it stay."""
        caller.require_submit(request.namespace)
        await self._host.settle(self._host.engine.delete_template(request.namespace, request.name))
        return pb.DeleteTemplateResponse()


class ReservationCalls:
    """Capacity that is held back."""

    def __init__(self, host: Host, now: Callable[[], datetime], *, longest_s: float = 0.0) -> None:
        """Only an administrator may hold capacity back for longer than `longest_s` seconds; 0: anybody may."""
        self._host = host
        self._now = now
        self._longest_s = longest_s

    async def reserve(self, caller: Identity, request: pb.Reservation) -> pb.Reservation:
        """Hold slots back for a job or for tasks with some tags, until a time; the same name again replaces it."""
        named = pb.Reservation()
        named.CopyFrom(request)
        named.namespace = request.namespace or caller.namespace or DEFAULT_NAMESPACE
        caller.require_submit(named.namespace)
        check_namespace(named.namespace)
        job = self._host.engine.job(named.job_uid).job if named.job_uid else None
        if job and job.namespace != named.namespace:
            raise NotFound(f"no job {named.job_uid!r} in namespace {named.namespace}", reason="NotFound")
        if job and job.pool and not caller.is_admin:
            raise Forbidden(f"pool {job.pool!r} is shared: only an administrator may hold back capacity of it",
                            reason="Forbidden")
        reservation = reservation_from_wire(named)
        self._check_length(caller, reservation)
        await self._host.settle(self._host.engine.reserve(reservation))
        return reservation_to_wire(reservation)

    def _check_length(self, caller: Identity, reservation: Reservation) -> None:
        asked_s = reservation.until - self._now().timestamp()
        if self._longest_s and asked_s > self._longest_s and not caller.is_admin:
            raise Permanent(f"reservation {reservation.name!r}: capacity is held back for {self._longest_s / 3600:g} h "
                            f"at most, not {asked_s / 3600:.1f} h: ask for less, or an administrator",
                            reason="InvalidReservation")

    async def release(self, caller: Identity, request: pb.ReservationName) -> pb.ReleaseReservationResponse:
        """Give the capacity free before its time."""
        caller.require_submit(request.namespace)
        await self._host.settle(self._host.engine.release(request.namespace, request.name))
        return pb.ReleaseReservationResponse()

    async def list_reservations(
        self, caller: Identity, request: pb.ListReservationsRequest
    ) -> pb.ListReservationsResponse:
        """The reservations of a namespace, or of all that the caller may see."""
        if request.namespace:
            caller.require_namespace(request.namespace)
        return pb.ListReservationsResponse(reservations=[
            reservation_to_wire(r) for (namespace, _), r in sorted(self._host.engine.reservations.items())
            if request.namespace in ("", namespace) and caller.may_see(namespace)
        ])
