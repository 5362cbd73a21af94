"""Real coordinators and workers that are killed, stopped and cut off, and what a cluster does about it: processes that
ended are started again, and new connections go to a coordinator that is ready."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.coordinator_process import CoordinatorProcess
from espalier_coordinator.local import NAME
from espalier_rpc.client import CoordinatorClient, channel

ROOT = Path(__file__).parents[2]
LEASE_S = 4.0
RESTART_S = 0.1
"""A supervisor looks so often."""
UNREADY_S = 1.0
"""A process that has stood still for so long gets no new connections."""
LONGEST_STOP_S = 7.0
"""Longer than a lease, and than PostgreSQL waits for a silent coordinator."""


class Service:
    """What a Kubernetes Service does, and a cable that can be cut: TCP from one port to the coordinator that is ready.
    """

    def __init__(self, targets: Callable[[], int | None]) -> None:
        self._targets = targets
        self._streams: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self, rng: random.Random, share: float) -> None:
        """Break about this share of all connections, without a word to either side."""
        for writer in list(self._streams):
            if rng.random() < share:
                writer.transport.abort()

    async def close(self) -> None:
        if self._server:
            self._server.close()
        for writer in list(self._streams):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = await asyncio.to_thread(self._targets)
        try:
            if port is None:
                return
            there, back = await asyncio.open_connection("127.0.0.1", port)
            self._streams |= {writer, back}
            try:
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
            finally:
                self._streams -= {writer, back}
                back.transport.abort()
        except OSError:
            pass  # refused or reset: the other side sees the same
        finally:
            writer.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.transport.abort()


class WorkerProcess:
    """One worker; a start after its end is another process, half of the time under another name."""

    def __init__(self, folder: Path, number: int, rng: random.Random) -> None:
        self._folder = folder
        self._number = number
        self._rng = rng
        self._starts = 0
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self, port: int) -> None:
        self._starts += self._rng.random() < 0.5
        own = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
        variables = {
            "COORDINATOR": f"127.0.0.1:{port}", "COORDINATOR_WEB": f"https://127.0.0.1:{port}",
            "COORDINATOR_NAME": NAME, "CA_FILE": str(self._folder / "tls" / "ca.crt"),
            "TOKEN_FILE": str(self._folder / "worker.token"), "NAMESPACE": "default",
            "ID": f"w{self._number}-{self._starts}", "PORT": "0", "CAPACITY": "4", "PREFETCH": "3",
        }
        environment = own | {f"ESPALIER_WORKER_{name}": value for name, value in variables.items()}
        with (self._folder / "workers.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "tests.support.chaos_worker"], cwd=ROOT,
                                            env=environment, stderr=log)

    @property
    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def wait(self) -> None:
        if self.process is not None:
            self.process.wait(timeout=30)


@dataclass
class Chaos:
    """The processes of one run; `harm` is one event."""

    folder: Path
    seed: int
    database: str = ""
    """A PostgreSQL URL, for two coordinators; empty: one, on SQLite."""
    workers: int = 3
    starts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        variables = {"LEASE_S": str(LEASE_S), "HEARTBEAT_S": "0.4"}
        if self.database:
            variables["DATABASE"] = self.database
        self.coordinators = [CoordinatorProcess(self.folder, **variables) for _ in range(2 if self.database else 1)]
        self.crew = [WorkerProcess(self.folder, n, self.rng) for n in range(self.workers)]
        self.service = Service(self._ready)
        self._stopped_since: dict[int, float] = {}
        self._wakes: set[asyncio.Task[None]] = set()
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await asyncio.to_thread(self.coordinators[0].start)
        await self.service.start()
        self._supervisor = asyncio.create_task(self._supervise())

    def client(self) -> CoordinatorClient:
        """An administrator, through the service."""
        ca_pem, token = (self.folder / "tls" / "ca.crt").read_text(), (self.folder / "admin.token").read_text()
        return CoordinatorClient(channel(f"127.0.0.1:{self.service.port}", ca_pem=ca_pem, server_name=NAME,
                                         token=lambda: token), timeout_s=5.0)

    def harm(self) -> str:
        """One random event; returns what it was."""
        kind = self.rng.choices(
            ["kill worker", "kill coordinator", "stop worker", "stop coordinator", "cut connections"],
            [25, 15, 20, 10, 30],
        )[0]
        what, _, who = kind.partition(" ")
        victims: list[CoordinatorProcess | WorkerProcess] = [*(self.crew if who == "worker" else self.coordinators)]
        alive = [v for v in victims if not v.has_ended]
        if what == "cut" or not alive:
            self.service.cut(self.rng, self.rng.choice([0.3, 1.0]))
            return "cut connections"
        victim = self.rng.choice(alive)
        if what == "kill":
            victim.send(signal.SIGKILL)
        else:
            self._stop(victim)
        return kind

    async def heal(self) -> None:
        """Everything that stands still goes on; what has ended is started as ever."""
        for wake in list(self._wakes):
            wake.cancel()
        await asyncio.gather(*self._wakes, return_exceptions=True)
        for process in (*self.coordinators, *self.crew):
            if not process.has_ended:
                process.send(signal.SIGCONT)
        self._stopped_since.clear()

    async def close(self) -> None:
        """Leave nothing running."""
        await self.heal()
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        await self.service.close()
        for process in (*self.coordinators, *self.crew):
            if not process.has_ended:
                process.send(signal.SIGKILL)
        for process in (*self.coordinators, *self.crew):
            if not process.has_ended:
                await asyncio.to_thread(process.wait)

    def _stop(self, victim: CoordinatorProcess | WorkerProcess) -> None:
        if id(victim) in self._stopped_since:
            return
        victim.send(signal.SIGSTOP)
        self._stopped_since[id(victim)] = time.monotonic()
        wake = asyncio.create_task(self._wake_later(victim, self.rng.uniform(0.2, LONGEST_STOP_S)))
        self._wakes.add(wake)
        wake.add_done_callback(self._wakes.discard)

    async def _wake_later(self, victim: CoordinatorProcess | WorkerProcess, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._stopped_since.pop(id(victim), None)
        if not victim.has_ended:
            victim.send(signal.SIGCONT)

    async def _supervise(self) -> None:
        while True:
            for coordinator in self.coordinators:
                if coordinator.has_ended:
                    self._stopped_since.pop(id(coordinator), None)
                    coordinator.spawn()
                    self.starts["coordinator"] += 1
            for worker in self.crew:
                if worker.has_ended:
                    self._stopped_since.pop(id(worker), None)
                    worker.spawn(self.service.port)
                    self.starts["worker"] += 1
            await asyncio.sleep(RESTART_S)

    def _ready(self) -> int | None:
        """The port of the coordinator that takes calls, as far as a readiness probe can know."""
        now = time.monotonic()
        for coordinator in self.coordinators:
            stopped = now - self._stopped_since.get(id(coordinator), now)
            if stopped < UNREADY_S and not coordinator.has_ended and coordinator.is_listening:
                return coordinator.grpc_port
        return None
