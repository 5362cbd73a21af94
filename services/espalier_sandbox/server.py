"""The sandbox's side of the socket: one worker is let in, the door is shut behind it, its commands run one by one.

The name of the door stays taken while commands run: one that could listen there would be given the next command's
request, and answer it.
"""

from __future__ import annotations

import contextlib
import socket

from espalier_kit.errors import Misconfigured, Permanent
from espalier_sandbox import running
from espalier_sandbox.wire import HEADER, MAX_REQUEST_BYTES, End, Kind, encode, frame, header, run_from


def listen(name: str) -> socket.socket:
    """The door. Raises `Misconfigured` where another sandbox of this network namespace has that name."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.bind(f"\0{name}")
    except OSError as error:
        raise Misconfigured(f"ESPALIER_SANDBOX_SOCKET: cannot listen as {name}: {error.strerror}") from error
    door.listen(1)
    return door


def let_in(door: socket.socket) -> socket.socket:
    """The first to come, before anything else runs here; afterwards nobody can knock any more."""
    worker, _ = door.accept()
    with contextlib.suppress(OSError):  # gVisor knows no such thing: there a knock waits and is never heard
        door.shutdown(socket.SHUT_RDWR)
    return worker


def serve(worker: socket.socket, *, problems: tuple[str, ...]) -> None:
    """Until the worker hangs up. With `problems` nothing runs: each request is answered with them."""
    refusal = f"the sandbox is not fit for other people's code: {'; '.join(problems)}" if problems else ""

    def output(chunk: bytes) -> None:
        worker.sendall(frame(Kind.OUTPUT, chunk))

    while (body := _body(worker, Kind.RUN)) is not None:
        stdin, files = _body(worker, Kind.STDIN), _body(worker, Kind.FILES)
        if stdin is None or files is None:
            return
        end = End(refusal=refusal) if refusal else running.run(run_from(body), stdin, files, output, worker=worker)
        worker.sendall(frame(Kind.END, encode(end)))


def _body(worker: socket.socket, wanted: Kind) -> bytes | None:
    """The next frame's body, None once the worker has hung up. Raises `Permanent` for another kind."""
    start = _exactly(worker, HEADER.size)
    if start is None:
        return None
    kind, length = header(start, longest=MAX_REQUEST_BYTES)
    if kind is not wanted:
        raise Permanent(f"the worker sent {kind.name} where {wanted.name} was due", reason="BadFrame")
    return _exactly(worker, length)


def _exactly(worker: socket.socket, count: int) -> bytes | None:
    kept = bytearray()
    while len(kept) < count:
        try:
            chunk = worker.recv(min(count - len(kept), 1 << 20))
        except ConnectionError:
            return None
        if not chunk:
            return None
        kept += chunk
    return bytes(kept)
