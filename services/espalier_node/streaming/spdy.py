"""SPDY/3.1 frames, as far as port-forward needs them (pure; the SPDY 3.1 protocol draft, sections 2.2 and 2.6).

Kubernetes still multiplexes forwarded connections over SPDY streams, today inside a WebSocket. No flow control: its
implementation there never sends nor heeds window updates.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from espalier_kit.errors import Permanent

_NAMES: Sequence[str] = re.split(
    " ",
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow"
    " authorization cache-control connection content-base content-encoding content-language content-length"
    " content-location content-md5 content-range content-type date etag expect expires from host if-match"
    " if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma"
    " proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade"
    " user-agent vary via warning www-authenticate method get status",
)
_MORE_NAMES = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(struct.pack(">I", len(name)) + name.encode() for name in (*_NAMES, *_MORE_NAMES)) + _TAIL.encode()
)
"""What both ends' compressors start from (section 2.6.10.1)."""
MAX_FRAME_BYTES = 1 << 20
_VERSION = 3
FIN = 0x01


class Kind(IntEnum):
    """Control frames that occur here; the rest is skipped."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    PING = 6
    GOAWAY = 7


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; `is_last`: no more will come from there."""

    stream: int
    payload: bytes
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Control:
    """A control frame, its payload still packed."""

    kind: int
    flags: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A peer opened a stream with these headers."""

    stream: int
    headers: Mapping[str, str]
    is_last: bool


class Reader:
    """Bytes in, frames out. Header blocks share one decompressor for the life of the connection."""

    def __init__(self) -> None:
        self._rest = b""
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Data | Control | Opened]:
        """The frames that are complete now. Raises `Permanent` on what is no SPDY/3."""
        self._rest += data
        while len(self._rest) >= 8:
            head, rest = struct.unpack(">II", self._rest[:8])
            flags, length = rest >> 24, rest & 0xFFFFFF
            if length > MAX_FRAME_BYTES:
                raise Permanent(f"a SPDY frame of {length} bytes is larger than {MAX_FRAME_BYTES}", reason="Protocol")
            if len(self._rest) < 8 + length:
                return
            payload, self._rest = self._rest[8 : 8 + length], self._rest[8 + length :]
            yield self._frame(head, flags, payload)

    def _frame(self, head: int, flags: int, payload: bytes) -> Data | Control | Opened:
        if not head >> 31:
            return Data(head, payload, bool(flags & FIN))
        if (head >> 16) & 0x7FFF != _VERSION:
            raise Permanent("the peer does not speak SPDY/3", reason="Protocol")
        kind = head & 0xFFFF
        if kind != Kind.SYN_STREAM:
            return Control(kind, flags, payload)
        try:
            stream = struct.unpack(">I", payload[:4])[0] & 0x7FFFFFFF
            return Opened(stream, _headers(self._inflate.decompress(payload[10:])), bool(flags & FIN))
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise Permanent(f"a SPDY stream's headers cannot be read: {error}", reason="Protocol") from error


class Writer:
    """Frames to bytes; replies share one compressor for the life of the connection."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def reply(self, stream: int) -> bytes:
        """The stream is accepted; no headers."""
        block = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(Kind.SYN_REPLY, struct.pack(">I", stream) + block)

    @staticmethod
    def data(stream: int, payload: bytes, *, is_last: bool = False) -> bytes:
        """Bytes on a stream."""
        return struct.pack(">II", stream, (FIN if is_last else 0) << 24 | len(payload)) + payload

    @staticmethod
    def reset(stream: int) -> bytes:
        """The stream is at an end at once: INTERNAL_ERROR."""
        return _control(Kind.RST_STREAM, struct.pack(">II", stream, 6))

    @staticmethod
    def ping(payload: bytes) -> bytes:
        """The answer to a ping: itself."""
        return _control(Kind.PING, payload)


def _control(kind: Kind, payload: bytes) -> bytes:
    return struct.pack(">II", 0x80000000 | _VERSION << 16 | kind, len(payload)) + payload


def _headers(block: bytes) -> dict[str, str]:
    """A name/value block (section 2.6.10); names in lower case."""
    words: list[str] = []
    at = 4
    for _ in range(2 * struct.unpack(">I", block[:4])[0]):
        (length,) = struct.unpack(">I", block[at : at + 4])
        words.append(block[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return dict(zip((name.lower() for name in words[::2]), words[1::2], strict=True))
