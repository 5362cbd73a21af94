"""The peers' servers on loopback, set so that what they acknowledged survives kill -9 and a power cut."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.coordinator_process import answers, free_ports
from espalier_kit.errors import Misconfigured

START_S = 15.0


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis that writes every command to disk before it answers; yields its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise Misconfigured("this benchmark needs redis-server: apt install redis-server")
    (port,) = free_ports(1)
    command = [
        program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--appendonly", "yes",
        "--appendfsync", "always", "--save", "", "--daemonize", "no", "--loglevel", "warning",
    ]  # fmt: skip
    with _running(command, folder / "redis.log", port):
        yield f"redis://127.0.0.1:{port}/0"


def redis_version() -> str:
    """Of the program on PATH."""
    answer = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return next(word.removeprefix("v=") for word in answer.split() if word.startswith("v="))


@contextmanager
def nats(program: Path, folder: Path) -> Iterator[str]:
    """A NATS server whose JetStream syncs every message; yields its URL."""
    (port,) = free_ports(1)
    settings = folder / "nats.conf"
    settings.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder / "jetstream"}", sync_interval: always }}\n'
    )
    with _running([str(program), "-c", str(settings)], folder / "nats.log", port):
        yield f"nats://127.0.0.1:{port}"


@contextmanager
def _running(command: list[str], log: Path, port: int) -> Iterator[None]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            end = time.monotonic() + START_S
            while not answers(port):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{command[0]} did not start: {log.read_text(errors='replace')[-500:]}")
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
