"""Compressed bodies of HTTP requests, unpacked within a limit. Pure."""

from __future__ import annotations

import zlib

from protocol.errors import RequestError

#: A body that takes longer to unpack than a hop to a thread costs is unpacked in a thread.
UNPACKED_INLINE_BYTES_MAX = 16 * 1024

#: wbits of zlib for each content coding.
_CODINGS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


def unpacked(body: bytes, encoding: bytes, bytes_max: int) -> bytes:
    """The body as it was before it was compressed.

    Raises: RequestError (unsupported, malformed; body_too_large before more than that is unpacked).
    """
    wbits = _CODINGS.get(encoding.lower())
    if wbits is None:
        raise RequestError(
            "unsupported",
            f"content-encoding {encoding[:40].decode('latin-1')!r} is not one of gzip, deflate",
        )
    unpacker = zlib.decompressobj(wbits)
    try:
        plain = unpacker.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise RequestError("malformed", f"the body cannot be unpacked: {error}") from None
    if len(plain) > bytes_max:
        raise RequestError("body_too_large", f"the unpacked body exceeds {bytes_max} B")
    if not unpacker.eof or unpacker.unused_data:
        raise RequestError("malformed", "the body is not one compressed stream")
    return plain
