"""KEDA's external scaler over the coordinator's gRPC port: the same number, by KEDA's documented contract.

KEDA cannot send a token; the answer is one number per pool, which the metrics page tells anybody as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from grpc import aio

from espalier_coordinator.scaling.pending import METRIC, Pending
from espalier_kit.errors import EspalierError, NotFound, Permanent
from espalier_rpc.server import abort
from espalier_rpc.v1 import externalscaler_pb2 as pb
from espalier_rpc.v1 import externalscaler_pb2_grpc as rpc

Context = aio.ServicerContext[Any, Any]

SERVICE = pb.DESCRIPTOR.services_by_name["ExternalScaler"].full_name


class KedaScaler(rpc.ExternalScalerServicer):
    """A ScaledObject's trigger names the `pool`, and with `targetPerWorker` what each worker is to have."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending

    async def IsActive(self, request: pb.ScaledObjectRef, context: Context) -> pb.IsActiveResponse:  # noqa: N802
        return pb.IsActiveResponse(result=await self._units(request, context) > 0)

    async def StreamIsActive(  # noqa: N802
        self, request: pb.ScaledObjectRef, context: Context
    ) -> AsyncIterator[pb.IsActiveResponse]:
        told: bool | None = None
        async with self._pending.host.watch() as watch:
            while True:
                is_active = await self._units(request, context) > 0
                if is_active != told:
                    told = is_active
                    yield pb.IsActiveResponse(result=is_active)
                await watch.take()

    async def GetMetricSpec(  # noqa: N802
        self, request: pb.ScaledObjectRef, context: Context
    ) -> pb.GetMetricSpecResponse:
        await self._units(request, context)
        try:
            target = target_of(request.scalerMetadata)
        except EspalierError as error:
            await abort(context, error)
        spec = pb.MetricSpec(metricName=METRIC, targetSize=target, targetSizeFloat=target)
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Context) -> pb.GetMetricsResponse:  # noqa: N802
        if request.metricName != METRIC:
            await abort(context, NotFound(f"no metric {request.metricName!r}: there is {METRIC}", reason="NotFound"))
        units = await self._units(request.scaledObjectRef, context)
        value = pb.MetricValue(metricName=METRIC, metricValue=units, metricValueFloat=units)
        return pb.GetMetricsResponse(metricValues=[value])

    async def _units(self, target: pb.ScaledObjectRef, context: Context) -> int:
        try:
            return units_of(target.scalerMetadata, self._pending.now())
        except EspalierError as error:
            await abort(context, error)


def units_of(metadata: Mapping[str, str], units: Mapping[str, int]) -> int:
    """Pending units of the pool that a trigger names. Raises `NotFound` with the pools there are."""
    pool = metadata.get("pool", "")
    if pool not in units:
        raise NotFound(f"no worker pool {pool!r}: set the trigger's metadata pool to one of {', '.join(units) or '-'}",
                       reason="UnknownPool")
    return units[pool]


def target_of(metadata: Mapping[str, str]) -> int:
    """What each worker is to have. Raises `Permanent` with a sentence."""
    text = metadata.get("targetPerWorker", "")
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise Permanent(f"targetPerWorker is {text!r}: set the trigger's metadata to a number of tasks, such as 16",
                        reason="InvalidTarget")
    return int(text)
