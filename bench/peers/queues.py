"""Run one peer: its server, two worker processes (two cores), one submitter; returns durable tasks per second."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers import brokers
from bench.peers.environments import PROGRAMS, Environment, environment

WORKERS = 2
WARMUP = 50
TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Peer:
    """A task queue: what to install, how its workers start. `{python}` and `{bin}` are its environment's."""

    name: str
    requirements: tuple[str, ...]
    worker: tuple[str, ...]
    processes: int = 1
    """Started by us; those that fork their own are one."""
    is_nats: bool = False

    @property
    def package(self) -> str:
        """Whose version is told."""
        return self.requirements[0].partition("==")[0].partition("[")[0]


PEERS = (
    Peer(
        "celery", ("celery==5.7.0", "redis==6.4.0", "packaging"),
        ("{bin}celery", "-A", "celery_app", "worker", "--pool=prefork", f"--concurrency={WORKERS}", "--loglevel=ERROR",
         "--without-gossip", "--without-mingle", "--without-heartbeat"),
    ),
    Peer(
        "dramatiq", ("dramatiq[redis]==2.2.1",),
        ("{bin}dramatiq", "dramatiq_app", f"--processes={WORKERS}", "--threads=8"),
    ),
    Peer(
        "arq", ("arq==0.28.0",), ("{bin}arq", "arq_app.WorkerSettings", "--custom-log-dict", "arq_app.QUIET"),
        processes=WORKERS,
    ),
    Peer(
        "taskiq", ("taskiq==0.13.0", "taskiq-redis==1.2.4"),
        ("{bin}taskiq", "worker", "taskiq_app:broker", f"--workers={WORKERS}", "--max-async-tasks=200",
         "--log-level=ERROR"),
    ),
    Peer("jetstream", ("nats-py==2.16.0",), ("{python}", "jetstream_app.py", "work"), processes=WORKERS, is_nats=True),
)  # fmt: skip


def measure(peer: Peer, cache: Path, nats_server: Path, *, tasks: int) -> float:
    """Tasks per second from the first submission to the last result on disk, from an empty server."""
    made = environment(cache, peer.name, peer.requirements)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        server = brokers.nats(nats_server, folder) if peer.is_nats else brokers.redis(folder)
        variables = {**os.environ, "PEER_URL": stack.enter_context(server), "PYTHONPATH": str(PROGRAMS)}
        program = [made.python, str(PROGRAMS / f"{peer.name}_app.py")]
        if peer.is_nats:
            _run([*program, "setup"], variables)
        for number in range(peer.processes):
            stack.enter_context(_worker(peer, made, variables, folder / f"worker-{number}.log"))
        # The first tasks find workers that still import; their results are not counted.
        _run([*program, "produce", str(WARMUP)], variables)
        purge = ["redis-cli", "-u", variables["PEER_URL"], "eval", _FORGET, "0"]
        _run([*program, "purge"] if peer.is_nats else purge, variables)
        answer = json.loads(_run([*program, "produce", str(tasks)], variables).splitlines()[-1])
        return float(answer["tasks"] / answer["seconds"])


def _run(command: list[str], variables: Mapping[str, str]) -> str:
    """What it printed; raises with its last words."""
    done = subprocess.run(command, env=dict(variables), check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]} failed: {done.stderr[-800:]}")
    return done.stdout


_RESULTS = ("celery-task-meta-*", "?" * 32, "arq:result:*", "result*")
_FORGET = "".join(f"for _, k in ipairs(redis.call('keys', '{p}')) do redis.call('del', k) end " for p in _RESULTS)
"""The warm-up's results, so that only those that are measured are counted."""


@contextmanager
def _worker(peer: Peer, made: Environment, variables: Mapping[str, str], log: Path) -> Iterator[None]:
    bin_directory = str(Path(made.python).parent) + os.sep
    line = [word.format(python=made.python, bin=bin_directory) for word in peer.worker]
    with log.open("wb") as output, subprocess.Popen(
        line, cwd=PROGRAMS, env=dict(variables), stdout=output, stderr=output, start_new_session=True
    ) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, 15)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
