"""A real coordinator process on loopback with its own folder, and channels to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import grpc.aio

from espalier_coordinator.local import NAME
from espalier_rpc.client import channel
from espalier_rpc.v1.coordinator_pb2_grpc import CoordinatorStub

if TYPE_CHECKING:  # exists for type checkers only
    from espalier_rpc.v1.coordinator_pb2_grpc import CoordinatorAsyncStub

START_S = 30.0


class Reachable(Protocol):
    """What workers and clients dial: one process, or whichever of several is active."""

    def channel(self, who: str) -> grpc.aio.Channel:
        """A channel as `admin` or `worker`."""
        ...


class CoordinatorProcess:
    """`espalier-coordinator --local FOLDER`; the ports stay the same over restarts."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.grpc_port, self.http_port = free_ports(2)
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "coordinator.log"

    def start(self) -> None:
        """Start and wait until it listens."""
        self._wait(self.spawn())

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start, perhaps as a standby that does not listen yet."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
        variables = {"HOST": "127.0.0.1", "GRPC_PORT": str(self.grpc_port), "HTTP_PORT": str(self.http_port),
                     **self._variables}
        environment = own | {f"ESPALIER_COORDINATOR_{name}": value for name, value in variables.items()}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "espalier_coordinator", "--local", str(self.folder)], env=environment, stderr=log
            )
        return self._process

    @property
    def is_listening(self) -> bool:
        """It takes calls: it is the active one."""
        return answers(self.grpc_port)

    @property
    def has_ended(self) -> bool:
        """Killed, or ended by itself."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """The exit code, once it has ended by itself."""
        assert self._process is not None
        return self._process.wait(timeout=30)

    def send(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT."""
        assert self._process is not None
        self._process.send_signal(number)

    def close(self) -> None:
        """Leave nothing running."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def channel(self, who: str) -> grpc.aio.Channel:
        """A channel as `admin` or `worker`."""
        token = (self.folder / f"{who}.token").read_text()
        return channel(f"127.0.0.1:{self.grpc_port}", ca_pem=(self.folder / "tls" / "ca.crt").read_text(),
                       server_name=NAME, token=lambda: token)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and process.poll() is None:
            if self.is_listening:
                return
            time.sleep(0.02)
        raise RuntimeError(f"the coordinator did not start: {self.log.read_text()[-2000:]}")


def answers(port: int) -> bool:
    """Whether something on loopback takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """So many different ones on loopback."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def stub(channel: grpc.aio.Channel) -> CoordinatorAsyncStub:
    """The calls, typed as what they are on an asyncio channel."""
    return CoordinatorStub(channel)
