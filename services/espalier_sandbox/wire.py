"""What worker and sandbox say to each other over their Unix socket: frames, each a kind, a length and a body.

The worker sends `RUN` (JSON), `STDIN` and `FILES` (a tar); the sandbox answers with `OUTPUT` frames as they come and
one `END` (JSON). Pure; both sides check lengths, for what runs in the sandbox may try to speak too.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from typing import Any

from espalier_kit.errors import Permanent

HEADER = struct.Struct("!BI")
MAX_REQUEST_BYTES = 1 << 30
"""A bundle's data files in one frame."""
MAX_ANSWER_BYTES = 1 << 20
CHUNK_BYTES = 64 * 1024


class Kind(IntEnum):
    """What a frame carries."""

    RUN = 1
    STDIN = 2
    FILES = 3
    OUTPUT = 4
    END = 5


@dataclass(frozen=True, slots=True)
class Run:
    """A command for the sandbox; `files` are unpacked into `folder`, which is made for it.

    With more than `processes` processes and threads at once it is ended; 0: no bound but the pod's.
    """

    command: tuple[str, ...]
    folder: str
    environment: dict[str, str]
    seconds: float
    output_bytes: int
    processes: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """How it ended. `refusal` is a sentence of the sandbox that would not run anything; `is_out_of_memory`: the kernel
    ended some process of it.
    """

    code: int = 0
    stderr: str = ""
    is_timeout: bool = False
    is_out_of_memory: bool = False
    refusal: str = ""


def frame(kind: Kind, body: bytes) -> bytes:
    """One frame."""
    return HEADER.pack(kind, len(body)) + body


def header(data: bytes, *, longest: int) -> tuple[Kind, int]:
    """Kind and length of the body. Raises `Permanent` for what is no frame."""
    number, length = HEADER.unpack(data)
    try:
        kind = Kind(number)
    except ValueError:
        raise Permanent(f"no frame of the sandbox has kind {number}", reason="BadFrame") from None
    if length > longest:
        raise Permanent(f"a frame of {length} bytes is too long for the sandbox's socket", reason="BadFrame")
    return kind, length


def encode(value: Run | End) -> bytes:
    """As JSON."""
    return json.dumps(asdict(value)).encode()


def run_from(body: bytes) -> Run:
    """The request. Raises `Permanent`."""
    value = _read(Run, body)
    assert isinstance(value, Run)
    return replace(value, command=tuple(value.command))


def end_from(body: bytes) -> End:
    """The last answer. Raises `Permanent`."""
    value = _read(End, body)
    assert isinstance(value, End)
    return value


def _read(cls: type[Run] | type[End], body: bytes) -> Run | End:
    try:
        fields: dict[str, Any] = json.loads(body)
        return cls(**fields)
    except (ValueError, TypeError) as error:
        raise Permanent(f"the sandbox's socket carries no {cls.__name__}: {error}", reason="BadFrame") from error
