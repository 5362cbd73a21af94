"""One espalier-mlx process as its clients see it, and what they ask it."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import openai

NAME = "judge/tiny"
SYSTEM = {"role": "system", "content": "You are a teacher. Read the answer, then give points, a comment, evidence."}
ASK = {"role": "user", "content": "def squares(n): return [i ** 2 for i in range(n)]"}
VERDICT = {
    "type": "object", "additionalProperties": False, "required": ["points", "comment", "evidence"],
    "properties": {
        "points": {"type": "integer", "minimum": 0, "maximum": 10},
        "comment": {"type": "string", "maxLength": 40},
        "evidence": {"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": 20}},
    },
}
ENDLESS = {"type": "string", "minLength": 30_000}
"""Keeps one place busy for many seconds, whatever the weights."""


class Server:
    """One espalier-mlx process on a port of its own."""

    def __init__(self, source: str, **settings: object) -> None:
        values = {"HOST": "127.0.0.1", "PORT": 0, "MODELS": json.dumps([{"name": NAME, "source": source}]), **settings}
        environ = {**os.environ, **{f"ESPALIER_MLX_{key}": str(value) for key, value in values.items()}}
        self.scheme = "https" if "TLS_DIR" in settings else "http"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "espalier_mlx"], env=environ, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._has_port = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.port = 0

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if '"event": "listening"' in line:
                self.port = json.loads(line)["port"]
                self._has_port.set()
        self._has_port.set()

    @property
    def url(self) -> str:
        assert self._has_port.wait(30)
        assert self.port, "".join(self.lines)
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def client(self, **options: object) -> openai.OpenAI:
        defaults = {"api_key": "none", "max_retries": 0, "timeout": 60}
        return openai.OpenAI(base_url=f"{self.url}/v1", **{**defaults, **options})

    def ready(self, verify: ssl.SSLContext | bool = True) -> httpx.Response:
        return httpx.get(f"{self.url}/ready", verify=verify)

    def end(self, timeout_s: float = 30) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 30) -> int:
        try:
            return self.process.wait(timeout_s)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            assert self.process.stderr is not None
            self.process.stderr.close()


@contextmanager
def serving(source: str, *, within_s: float, **settings: object) -> Iterator[Server]:
    """A server that is ready within that time, and is stopped afterwards."""
    server = Server(source, **settings)
    try:
        until(lambda: server.ready().status_code == 200, within_s, server)
        yield server
    finally:
        if server.process.poll() is None:
            server.end()
        else:
            server.wait()


def until(is_true: Callable[[], bool], within_s: float, server: Server) -> None:
    """Wait while the process lives; a refused or broken connection means not yet."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if is_true():
                return
        except httpx.TransportError:
            pass
        assert server.process.poll() is None, "".join(server.lines)
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s} s; log:\n" + "".join(server.lines))


def occupy(server: Server, stack: list[openai.Stream[object]]) -> None:
    """Start an endless stream and wait for its first token."""
    client = server.client()
    stream = client.chat.completions.create(
        model=NAME, messages=[ASK], stream=True, max_tokens=30_000, response_format=json_schema(ENDLESS)
    )
    stack.append(stream)
    for chunk in stream:
        if chunk.choices[0].delta.content:
            return


def json_schema(schema: dict[str, object]) -> dict[str, object]:
    """The response format that holds an answer to that schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
