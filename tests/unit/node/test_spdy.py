"""SPDY/3.1 frames: what a peer's compressor wrote can be read, what is none is refused."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier_kit.errors import Permanent
from espalier_node.streaming.spdy import DICTIONARY, Control, Data, Kind, Opened, Reader, Writer


class Peer:
    """The other end's SYN_STREAM frames, all from one compressor."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def opens(self, stream: int, headers: dict[str, str], *, is_last: bool = False) -> bytes:
        words = [word.encode() for pair in headers.items() for word in pair]
        block = struct.pack(">I", len(headers)) + b"".join(struct.pack(">I", len(w)) + w for w in words)
        packed = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        payload = struct.pack(">IIH", stream, 0, 0) + packed
        return struct.pack(">II", 0x80030001, int(is_last) << 24 | len(payload)) + payload


def test_the_dictionary_is_the_protocols() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


@given(st.lists(st.integers(1, 64), max_size=40))
def test_streams_and_data_are_read_however_they_are_cut(cuts: list[int]) -> None:
    peer = Peer()
    sent = (
        peer.opens(1, {"streamType": "error", "port": "8000", "requestID": "0"}, is_last=True)
        + peer.opens(3, {"streamType": "data", "port": "8000", "requestID": "0"})
        + Writer.data(3, b"x" * 300) + Writer.data(3, b"", is_last=True) + Writer.ping(b"\0\0\0\1")
    )  # fmt: skip
    reader, found = Reader(), []
    for size in [*cuts, len(sent)]:
        piece, sent = sent[:size], sent[size:]
        found += reader.feed(piece)
    headers = {"port": "8000", "requestid": "0"}
    assert found == [
        Opened(1, {"streamtype": "error", **headers}, is_last=True),
        Opened(3, {"streamtype": "data", **headers}, is_last=False),
        Data(3, b"x" * 300),
        Data(3, b"", is_last=True),
        Control(Kind.PING, 0, b"\0\0\0\1"),
    ]


def test_replies_share_one_compressor() -> None:
    writer, inflate = Writer(), zlib.decompressobj(zdict=DICTIONARY)
    for stream in (1, 3):
        frame = writer.reply(stream)
        assert struct.unpack(">II", frame[:8]) == (0x80030002, len(frame) - 8)
        assert struct.unpack(">I", frame[8:12]) == (stream,)
        assert inflate.decompress(frame[12:]) == b"\0\0\0\0"


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (struct.pack(">II", 0x80020001, 0), "does not speak SPDY/3"),
        (struct.pack(">II", 1, 2 << 20), "larger than"),
        (struct.pack(">II", 0x80030001, 12) + b"\0" * 10 + b"xx", "headers cannot be read"),
    ],
)
def test_what_is_no_spdy_is_refused(frame: bytes, words: str) -> None:
    with pytest.raises(Permanent, match=words):
        list(Reader().feed(frame))
