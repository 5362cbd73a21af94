"""Dead letters, templates, reservations."""

from __future__ import annotations

from typing import NoReturn

from espalier_coordinator.access import Identity
from espalier_coordinator.host import Host
from espalier_kit.errors import Permanent
from espalier_rpc.v1 import coordinator_pb2 as pb


class _Calls:
    def __init__(self, host: Host) -> None:
        self._host = host


def _later() -> NoReturn:
    raise Permanent("this call is not offered yet", reason="Unimplemented")


class LetterCalls(_Calls):
    async def list_letters(self, caller: Identity, request: pb.ListDeadLettersRequest) -> pb.ListTasksResponse:
        _later()

    async def retry(self, caller: Identity, request: pb.RetryTasksRequest) -> pb.RetryTasksResponse:
        _later()


class TemplateCalls(_Calls):
    async def put(self, caller: Identity, request: pb.Template) -> pb.Template:
        _later()

    async def get(self, caller: Identity, request: pb.TemplateName) -> pb.Template:
        _later()

    async def list_templates(self, caller: Identity, request: pb.ListTemplatesRequest) -> pb.ListTemplatesResponse:
        _later()

    async def delete(self, caller: Identity, request: pb.TemplateName) -> pb.DeleteTemplateResponse:
        _later()


class ReservationCalls(_Calls):
    async def reserve(self, caller: Identity, request: pb.Reservation) -> pb.Reservation:
        _later()

    async def release(self, caller: Identity, request: pb.ReservationName) -> pb.ReleaseReservationResponse:
        _later()

    async def list_reservations(
        self, caller: Identity, request: pb.ListReservationsRequest
    ) -> pb.ListReservationsResponse:
        _later()
