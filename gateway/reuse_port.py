"""Leaving a group of listeners at one port (SO_REUSEPORT) without losing who connects just then.

The kernel spreads new connections over the group. A listener that is closed resets those that wait
in its own queue; so before it closes, the group gets a filter that chooses among the others. The
filter names listeners by their place: the kernel appends who comes, and moves the last one to the
place of who goes (net/core/sock_reuseport.c). A place that does not exist means: any, by hash.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
from pathlib import Path

#: <asm-generic/socket.h>; Python does not name them.
SO_ATTACH_REUSEPORT_CBPF = 51
SO_DETACH_REUSEPORT_BPF = 68

#: Classic BPF: code, jump if true, jump if false, k.
_INSTRUCTION = struct.Struct("HBBI")
_LOAD_RANDOM = (0x20, 0, 0, (0xFFFFF000 + 56) & 0xFFFFFFFF)  # ld #random
_MODULO = 0x94  # mod #k
_JUMP_GE = 0x35  # jge #k
_ADD = 0x04  # add #k
_RETURN_A = (0x16, 0, 0, 0)
_RETURN_K = 0x06


def listeners_at(port: int) -> list[socket.socket]:
    """Copies of the listening TCP sockets of this process at a port; the caller closes them."""
    found: list[socket.socket] = []
    for entry in Path("/proc/self/fd").iterdir():
        number = int(entry.name)
        if any(number == copy.fileno() for copy in found):
            continue  # ours: it has the number by which the directory was read
        try:
            if not stat.S_ISSOCK(entry.stat().st_mode):
                continue
            candidate = socket.socket(fileno=os.dup(number))
        except OSError:
            continue  # gone meanwhile
        is_tcp = candidate.family in (socket.AF_INET, socket.AF_INET6)
        if (
            is_tcp
            and candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            and candidate.getsockname()[1] == port
        ):
            found.append(candidate)
        else:
            candidate.close()
    return found


def steer_away(listener: socket.socket, place: int, count: int) -> None:
    """Have new connections go to the other listeners of the group. Raises OSError.

    place: of this one among `count` (at least 2).
    """
    assert 0 <= place < count, (place, count)
    assert count >= 2, count
    if count == 2:
        program = [(_RETURN_K, 0, 0, 1 - place)]
    else:
        program = [
            _LOAD_RANDOM,
            (_MODULO, 0, 0, count - 1),
            (_JUMP_GE, 0, 1, place),
            (_ADD, 0, 0, 1),
            _RETURN_A,
        ]
    instructions = b"".join(_INSTRUCTION.pack(*each) for each in program)
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    head = struct.pack("HP", len(program), ctypes.addressof(buffer))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, head)


def leave(listener: socket.socket) -> None:
    """Stop listening, and take the filter away first, for it would favour some of the others."""
    listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
    listener.shutdown(socket.SHUT_RDWR)
