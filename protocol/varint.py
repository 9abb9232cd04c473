"""Variable-length numbers of protobuf's wire, for messages that are scanned or written by hand.

Speed matters: a scan reads a few of them for each request, most of them of one byte.
"""

from __future__ import annotations

from protocol.native import Buffer

#: Bits that a number can have at most, in groups of seven: 10 B.
BITS_MAX = 70


def read_varint(body: Buffer, at: int) -> tuple[int, int]:
    """The number that begins at a place, and where it ends.

    Raises: IndexError if the body ends before it does; ValueError if it is longer than 10 B.
    """
    byte = body[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while shift < BITS_MAX:
        at += 1
        byte = body[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
    raise ValueError("a number is longer than 10 B")


def varint(value: int) -> bytes:
    """A number as it stands on the wire. REQUIRES: it is not negative."""
    assert value >= 0, value
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
