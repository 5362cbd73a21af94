"""Real `espalier-worker` processes under a no-op load: what a peer's worker does, not only the wire protocol."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.coordinator_process import CoordinatorProcess, stub
from bench.load import PIECES, TYPE, submit
from espalier_coordinator.local import NAME
from espalier_rpc.v1 import coordinator_pb2 as pb

WORKERS, CAPACITY, PREFETCH = 2, 200, 64
LOOK_S = 0.01
WARMUP_TASKS = 200


def measure(*, tasks: int, payload: bytes) -> float:
    """Tasks per second from the first submission to the last result on disk, from an empty database."""
    with tempfile.TemporaryDirectory() as folder:
        process = CoordinatorProcess(Path(folder))
        process.start()
        try:
            with _worker(process, 0), _worker(process, 1):
                asyncio.run(_job(process, "warm-up", WARMUP_TASKS, payload))
                return tasks / asyncio.run(_job(process, "measured", tasks, payload))
        finally:
            process.close()


async def _job(process: CoordinatorProcess, uid: str, tasks: int, payload: bytes) -> float:
    specs = [pb.TaskSpec(key=str(n), type=TYPE, payload=payload) for n in range(tasks)]
    began = time.monotonic()
    await submit(process, uid, specs, batch=PIECES)
    async with process.channel("admin") as channel:
        while True:
            found = await stub(channel).GetJob(pb.GetJobRequest(uid=uid))
            if found.counts.done == tasks:
                return time.monotonic() - began
            await asyncio.sleep(LOOK_S)


@contextmanager
def _worker(process: CoordinatorProcess, number: int) -> Iterator[None]:
    variables = {
        "COORDINATOR": f"127.0.0.1:{process.grpc_port}", "COORDINATOR_NAME": NAME, "PORT": "0",
        "CA_FILE": str(process.folder / "tls" / "ca.crt"), "TOKEN_FILE": str(process.folder / "worker.token"),
        "CAPACITY": str(CAPACITY), "PREFETCH": str(PREFETCH), "ID": f"bench-{number}",
        "EXECUTORS": f"{TYPE}=bench.executor:nothing",
    }  # fmt: skip
    own = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
    environment = own | {f"ESPALIER_WORKER_{name}": value for name, value in variables.items()}
    environment["PYTHONPATH"] = os.getcwd()
    with (process.folder / f"worker-{number}.log").open("wb") as log, subprocess.Popen(
        [sys.executable, "-m", "espalier_worker"], env=environment, stderr=log
    ) as worker:
        try:
            yield
        finally:
            worker.kill()
