"""What a worker's capacity is good for: work that fills cores, waits for others, or needs one GPU."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.coordinator_process import CoordinatorProcess, stub
from bench.runner import Options, Result, Scenario, machine, repeat
from espalier_coordinator.local import NAME
from espalier_rpc.v1 import coordinator_pb2 as pb

CORES = os.cpu_count() or 1
CAPACITIES = {"one": 1, "cores": CORES, "four_times": 4 * CORES}
KINDS = {"cpu": 60, "io": 30, "gpu": 30}
"""Tasks of a run for each core, or for the one device."""
START_S = 30.0
ROOT = Path(__file__).resolve().parent.parent


def measure(scale: float) -> Mapping[str, float]:
    """Tasks a second by kind and capacity, through a real coordinator and a real worker."""
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        process = CoordinatorProcess(Path(folder))
        process.start()
        try:
            for name, capacity in CAPACITIES.items():
                with worker(process, capacity):
                    for kind, count in KINDS.items():
                        tasks = round(scale * count * (1 if kind == "gpu" else CORES))
                        rates[f"{kind} at {name}"] = asyncio.run(_rate(process, f"{kind}-{name}", kind, tasks))
        finally:
            process.close()
    return rates


@contextmanager
def worker(process: CoordinatorProcess, capacity: int) -> Iterator[None]:
    """A real worker with that capacity, and nothing fetched ahead."""
    kinds = ",".join(f"{kind}=bench.capacity_executors:{kind}" for kind in KINDS)
    variables = {
        "COORDINATOR": f"127.0.0.1:{process.grpc_port}", "COORDINATOR_WEB": f"https://127.0.0.1:{process.http_port}",
        "COORDINATOR_NAME": NAME, "CA_FILE": process.folder / "tls" / "ca.crt", "PORT": "0", "LOG_LEVEL": "warning",
        "TOKEN_FILE": process.folder / "worker.token", "CAPACITY": capacity, "PREFETCH": capacity, "EXECUTORS": kinds,
        "TYPES": ",".join(KINDS), "ID": f"capacity-{capacity}",
    }
    own = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
    environ = own | {f"ESPALIER_WORKER_{name}": str(value) for name, value in variables.items()}
    running = subprocess.Popen([sys.executable, "-m", "espalier_worker"], env=environ, cwd=ROOT)
    try:
        asyncio.run(_until_here(process, f"capacity-{capacity}"))
        yield
    finally:
        running.terminate()
        running.wait(30)


async def _until_here(process: CoordinatorProcess, worker_id: str) -> None:
    end = time.monotonic() + START_S
    async with process.channel("admin") as channel:
        while time.monotonic() < end:
            workers = (await stub(channel).ListWorkers(pb.ListWorkersRequest(status_filter="idle"))).workers
            if any(w.worker_id == worker_id for w in workers):
                return
            await asyncio.sleep(0.05)
    raise RuntimeError(f"worker {worker_id} did not come within {START_S:.0f} s")


async def _rate(process: CoordinatorProcess, uid: str, kind: str, tasks: int) -> float:
    specs = [pb.TaskSpec(key=str(n), type=kind) for n in range(tasks)]
    async with process.channel("admin") as channel:
        calls = stub(channel)
        job = pb.SubmitJobRequest(uid=uid, namespace="default", name=uid, tasks=specs)
        made = await calls.SubmitJob(job)
        last = made
        async for view in calls.WatchJob(pb.WatchJobRequest(job_id=uid)):
            last = view
    if last.counts.done != tasks:
        raise RuntimeError(f"{uid}: {last.counts.done} of {tasks} tasks done")
    return tasks / (last.finished_at - made.submitted_at)


def run(options: Options) -> Result:
    """Raises where the guidance of docs/how-to/capacity.md does not hold here."""
    scale, warmup, n = (0.5, 0, 1) if options.quick else (1.0, 1, 3)
    units = {f"{kind} at {name}": "tasks/s" for kind in KINDS for name in CAPACITIES}
    metrics = repeat(lambda: measure(scale), warmup=warmup, n=n, units=units)
    ratios = {
        f"{kind}: four times the cores against {base}": metrics[f"{kind} at four_times"].median
        / metrics[f"{kind} at {base}"].median
        for kind, base in (("cpu", "cores"), ("io", "cores"), ("gpu", "one"))
    }
    check(ratios)
    return Result("capacity", machine(), options.seed, warmup, n, metrics, ratios,
                  note=f"{CORES} cores; io and gpu tasks take 50 ms, cpu tasks some 15 ms of one core.")


def check(ratios: Mapping[str, float]) -> None:
    """Waiting scales with capacity; computing and a single device do not."""
    cpu, io, gpu = ratios.values()
    if io < 2.5 or cpu > 1.5 or gpu > 1.2:
        raise RuntimeError(f"the guidance does not hold: {dict(ratios)}")


SCENARIO = Scenario("capacity", "Tasks a second by a worker's capacity: CPU-bound, I/O-bound, one GPU", run)
