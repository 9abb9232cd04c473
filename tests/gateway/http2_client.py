"""A gRPC client written by hand on HTTP/2, which takes only as much as it wants to (RFC 9113)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from typing import NamedTuple

from gateway.grpc_door import PREDICT

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
#: What a connection and each of its streams may send before it is allowed more.
WINDOW_BYTES = 65_535


class Frame(NamedTuple):
    """One frame, its stream by number."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def _length(size: int) -> bytes:
    """RFC 7541, 5.1, with a prefix of 7 bits; up to 254."""
    return bytes([size]) if size < 127 else bytes([127, size - 127])


class Http2Client:
    """One connection. Make it with `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = -1
        #: bytes of messages that came, by stream, with the 5 of framing before each
        self.data_bytes: Counter[int] = Counter()

    @classmethod
    async def connect(cls, address: str, receive_buffer: int = 0) -> Http2Client:
        """Connect to `host:port`. receive_buffer: of the kernel, in bytes; 0 = as it likes."""
        host, _, port = address.rpartition(":")
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect((host, int(port)))
        connection.setblocking(False)
        limit = receive_buffer or 2**16
        client = cls(*await asyncio.open_connection(sock=connection, limit=limit))
        client._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        client._send(SETTINGS, 0, 0, b"")
        return client

    def call(self, body: bytes, *more: tuple[str, str]) -> int:
        """Send one `Predict` with this message and more headers. Returns its stream's number."""
        stream = self.open_call(*more)
        self._send(DATA, END_STREAM, stream, b"\0" + struct.pack("!I", len(body)) + body)
        return stream

    async def drain(self) -> None:
        """Wait until the server has read most of what was sent."""
        await self._writer.drain()

    def open_call(self, *more: tuple[str, str], path: str = PREDICT) -> int:
        """Begin a call, with no message yet. Returns its stream's number."""
        self._stream += 2
        fields = (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            *((name.encode(), value.encode()) for name, value in more),
        )
        # HPACK: literals that nobody remembers, with new names (RFC 7541, 6.2.2).
        block = b"".join(
            b"\0" + bytes([len(name)]) + name + _length(len(value)) + value
            for name, value in fields
        )
        self._send(HEADERS, END_HEADERS, self._stream, block)
        return self._stream

    def allow(self, stream: int, size: int) -> None:
        """Let the server send so many more bytes on a stream, or in all (stream 0)."""
        self._send(WINDOW_UPDATE, 0, stream, struct.pack("!I", size))

    async def receive(self) -> Frame:
        """The next frame that concerns a stream; settings and pings are answered."""
        while True:
            head = await self._reader.readexactly(9)
            size, kind, flags, stream = (
                int.from_bytes(head[:3]),
                head[3],
                head[4],
                int.from_bytes(head[5:]),
            )
            payload = await self._reader.readexactly(size)
            if kind in (SETTINGS, PING) and not flags & ACK:
                self._send(kind, ACK, 0, payload if kind == PING else b"")
            elif stream:
                self.data_bytes[stream] += size if kind == DATA else 0
                return Frame(kind, flags, stream, payload)

    async def receive_end(self, stream: int) -> int:
        """Wait for a call's end. Returns how many bytes its messages had, with their framing."""
        while True:
            frame = await self.receive()
            assert frame.kind != RST_STREAM
            if frame.stream == stream and frame.flags & END_STREAM:
                return self.data_bytes[stream]

    async def wait_closed(self) -> bool:
        """Answer pings until the server closes the connection."""
        try:
            await self.receive()
        except asyncio.IncompleteReadError as error:
            return not error.partial
        return False

    def close(self) -> None:
        """Leave without a word."""
        self._writer.transport.abort()

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        size = len(payload).to_bytes(3)
        self._writer.write(size + bytes([kind, flags]) + struct.pack("!I", stream) + payload)
