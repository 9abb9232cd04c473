"""Scans of ModelInferRequests, remembered: clients send the same names and shapes again and again.

A request that differs from an earlier one in its id and its raw contents only asks for the same.
That is proved by comparison of every other byte, so nothing is read in another way than by
`oip.scan_request`, which reads each kind of request once.
"""

from __future__ import annotations

from typing import NamedTuple

from protocol import oip
from protocol.native import Buffer
from protocol.oip import Scan

#: Kinds of requests that are remembered, and bytes of each that are compared.
SCANS_MAX = 256
COMPARED_BYTES_MAX = 2048

#: Kinds that have the same size; further ones are read each time.
SAME_SIZE_MAX = 4


class _Kind(NamedTuple):
    """Requests of one size that are the same. fixed: begin, end and bytes of what they share."""

    fixed: tuple[tuple[int, int, bytes], ...]
    scan: Scan
    id_begin: int
    id_end: int


class Scans:
    """The memory of one gateway."""

    def __init__(self) -> None:
        self._kinds: dict[int, list[_Kind]] = {}
        self._count = 0

    def scan(self, body: Buffer) -> Scan:
        """As `oip.scan_request`, which says what is raised."""
        size = len(body)
        kinds = self._kinds.get(size)
        if kinds is not None:
            for fixed, scan, id_begin, id_end in kinds:
                for begin, end, expected in fixed:
                    if body[begin:end] != expected:
                        break
                else:
                    if id_begin == id_end:
                        return scan
                    try:
                        return scan._replace(id=bytes(body[id_begin:id_end]).decode())
                    except UnicodeDecodeError:
                        break  # it is said there what is wrong
        scan = oip.scan_request(body)
        self._remember(body, scan)
        return scan

    def _remember(self, body: Buffer, scan: Scan) -> None:
        kinds = self._kinds.get(len(body))
        if kinds is not None and len(kinds) >= SAME_SIZE_MAX:
            return
        kind = _kind(body, scan)
        if kind is None:
            return
        if self._count >= SCANS_MAX:
            self._kinds.clear()
            self._count = 0
        self._kinds.setdefault(len(body), []).append(kind)
        self._count += 1


def _kind(body: Buffer, scan: Scan) -> _Kind | None:
    """What a request shares with others; None if that is too much to be compared each time."""
    fixed: list[tuple[int, int, bytes]] = []
    id_begin = id_end = shared_from = compared = 0
    for tag, _, start, end in (*oip.fields(body), (oip.RAW, 0, len(body), len(body))):
        if tag == oip.RAW or tag == oip.ID:
            compared += start - shared_from
            if compared > COMPARED_BYTES_MAX:
                return None
            if start > shared_from:
                fixed.append((shared_from, start, bytes(body[shared_from:start])))
            shared_from = end
            if tag == oip.ID:
                id_begin, id_end = start, end
    return _Kind(tuple(fixed), scan, id_begin, id_end)
