"""The sandbox of a pod: commands go to the pod's other container over a Unix socket (`espalier_sandbox`)."""

from __future__ import annotations

import asyncio
import io
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

from espalier_grading.sandbox import Finished, environment
from espalier_kit.errors import Permanent
from espalier_kit.execution import PlatformFault
from espalier_sandbox.wire import (
    HEADER,
    MAX_ANSWER_BYTES,
    MAX_REQUEST_BYTES,
    End,
    Kind,
    Run,
    encode,
    end_from,
    frame,
    header,
)

CONNECT_SECONDS = 20.0
"""The sandbox's container starts before the worker's; this is for a node under load."""
RESTART_SECONDS = 320.0
"""A container that has ended is started again by the kubelet, after at most 300 s."""
ANSWER_SECONDS = 30.0
"""Past the command's own deadline: the sandbox is gone or was subverted."""
_RETRY_SECONDS = 0.05
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Pod:
    """The pod's sandbox. It lets one worker in at a time: keep one of these per process.

    A command that has more than `most` processes and threads at once is ended; 0: the kubelet's podPidsLimit alone
    holds it.
    """

    processes = 4096
    """Far more than a pod may have (the kubelet's podPidsLimit): the kernel counts all pods of this uid together."""

    def __init__(self, socket: str, *, most: int = 0) -> None:
        self._socket, self._most = socket, most
        self._is_spent = False
        self._patience_s = CONNECT_SECONDS
        self._streams: Streams | None = None
        self._turn = asyncio.Lock()

    async def run(
        self, command: Sequence[str], *, stdin: bytes, scratch: Path, readable: Path, seconds: float, output_bytes: int
    ) -> Finished:
        """See `Sandbox`. `readable` lies in the image of both containers."""
        request = Run(tuple(command), str(scratch), environment(scratch), seconds, output_bytes, self._most)
        files = await asyncio.to_thread(pack, scratch)
        if len(files) > MAX_REQUEST_BYTES:
            raise PlatformFault("the bundle's data files do not fit one message to the sandbox", reason="SandboxFailed")
        output = bytearray()
        async with self._turn:
            self._streams = self._streams or await self._connect()
            try:
                async with asyncio.timeout(seconds + ANSWER_SECONDS):
                    end = await self._ask(self._streams, request, stdin, files, output)
            except TimeoutError as error:
                raise PlatformFault("the sandbox did not answer in time", reason="SandboxFailed") from error
        if end.refusal:
            raise PlatformFault(end.refusal, reason="SandboxUnfit")
        is_lost = self._streams is None and not self._is_spent
        return Finished(end.code, bytes(output), end.stderr, end.is_timeout, end.is_out_of_memory, is_lost)

    def close(self) -> None:
        """Hang up: what runs there ends."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask(self, streams: Streams, request: Run, stdin: bytes, files: bytes, output: bytearray) -> End:
        reader, writer = streams
        try:
            for kind, body in ((Kind.RUN, encode(request)), (Kind.STDIN, stdin), (Kind.FILES, files)):
                writer.write(frame(kind, body))
                await writer.drain()
            return await _answer(reader, output, request.output_bytes)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.close()
            return End(code=-9, stderr="the sandbox's container ended: out of memory, or stopped from outside")
        except Permanent as error:  # a subverted sandbox spoils its own submission only, and is not asked again
            self._is_spent = True
            self.close()
            return End(code=-9, stderr=str(error))
        except BaseException:  # cancelled in the middle: what is still on its way belongs to nobody
            self.close()
            raise

    async def _connect(self) -> Streams:
        if self._is_spent:
            raise PlatformFault("the sandbox of this pod is spent", reason="SandboxFailed")
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                streams = await asyncio.open_unix_connection(f"\0{self._socket}")
                self._patience_s = RESTART_SECONDS
                return streams
            except OSError as error:
                if time.monotonic() > deadline:
                    raise PlatformFault(
                        f"no sandbox answers as {self._socket}: execution.sandbox container and gvisor need pods that "
                        "the operator makes",
                        reason="SandboxUnavailable",
                    ) from error
            await asyncio.sleep(_RETRY_SECONDS)


def pack(folder: Path) -> bytes:
    """A folder's content as a tar."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(folder, arcname=".", filter=_anonymous)
    return output.getvalue()


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry


async def _answer(reader: asyncio.StreamReader, output: bytearray, limit: int) -> End:
    while True:
        kind, length = header(await reader.readexactly(HEADER.size), longest=MAX_ANSWER_BYTES)
        body = await reader.readexactly(length)
        match kind:
            case Kind.OUTPUT:
                output += body[: max(0, limit - len(output))]
            case Kind.END:
                return end_from(body)
            case _:
                raise Permanent(f"the sandbox sent {kind.name}", reason="BadFrame")
