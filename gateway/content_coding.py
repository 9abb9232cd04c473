"""Content codings of HTTP: requests are unpacked within a limit, replies are packed. Pure."""

from __future__ import annotations

import zlib

from protocol.errors import RequestError

#: A body that takes longer to unpack, or to pack, than a hop to a thread costs goes to a thread.
INLINE_BYTES_MAX = 16 * 1024

#: Smaller replies are not packed: they are one segment of TCP anyway.
PACKED_BYTES_MIN = 1024

#: zlib's fastest: the others cost more processor time than what they save on a local network.
LEVEL = 1

GZIP = b"gzip"
DEFLATE = b"deflate"

#: wbits of zlib for each content coding, the preferred one first.
CODINGS = {GZIP: 16 + zlib.MAX_WBITS, DEFLATE: zlib.MAX_WBITS}


def unpacked(body: bytes, encoding: bytes, bytes_max: int) -> bytes:
    """The body as it was before it was compressed.

    Raises: RequestError (unsupported, malformed; body_too_large before more than that is unpacked).
    """
    wbits = CODINGS.get(encoding.lower())
    if wbits is None:
        raise RequestError(
            "unsupported",
            f"content-encoding {encoding[:40].decode('latin-1')!r} is not one of gzip, deflate",
        )
    return inflated(body, wbits, bytes_max, "the body")


def inflated(packed_bytes: bytes, wbits: int, bytes_max: int, what: str) -> bytes:
    """One compressed stream as it was before. wbits: zlib's, which say the format; what: for texts.

    Raises: RequestError (malformed; body_too_large before more than that is unpacked).
    """
    unpacker = zlib.decompressobj(wbits)
    try:
        plain = unpacker.decompress(packed_bytes, bytes_max + 1)
    except zlib.error as error:
        raise RequestError("malformed", f"{what} cannot be unpacked: {error}") from None
    if len(plain) > bytes_max:
        raise RequestError("body_too_large", f"{what} unpacked exceeds {bytes_max} B")
    if not unpacker.eof or unpacker.unused_data:
        raise RequestError("malformed", f"{what} is not one compressed stream")
    return plain


def packed(body: bytes, encoding: bytes) -> bytes:
    """The body in a coding that `accepted_coding` gave."""
    packer = zlib.compressobj(LEVEL, wbits=CODINGS[encoding])
    return packer.compress(body) + packer.flush()


def accepted_coding(accept_encoding: bytes | None) -> bytes | None:
    """The coding of ours that a client likes best; None = it wants the body as it is.

    RFC 9110, section 12.5.3; what cannot be read is not there.
    """
    if not accept_encoding:
        return None
    qualities: dict[bytes, float] = {}
    for element in accept_encoding.lower().split(b","):
        name, _, parameter = element.partition(b";")
        qualities[name.strip()] = _quality(parameter)
    everything = qualities.get(b"*", 0.0)
    best = max(CODINGS, key=lambda coding: qualities.get(coding, everything))
    quality = qualities.get(best, everything)
    return best if 0.0 < quality >= qualities.get(b"identity", 0.0) else None


def _quality(parameter: bytes) -> float:
    name, _, value = parameter.strip().partition(b"=")
    if not name:
        return 1.0
    try:
        quality = float(value) if name == b"q" else 0.0
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0
