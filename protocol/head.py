"""The head: the only bytes that every process on the way reads.

A message is one or more *parcels*; a parcel is a head frame followed by `body_frames` body
frames. So several requests or replies can leave as one message and be split again without a
look into any body. Byte table and rules: docs/PROTOCOL.md §2.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from protocol import limits
from protocol.errors import RemoteProtocolError

MAGIC: bytes = b"MS"
VERSION = 1

READY = 1
WELCOME = 2
REQUEST = 3
REPLY = 4
HEARTBEAT = 5
DRAIN = 6
DISCONNECT = 7
CANCEL = 8
LOST = 9
STATS = 10
RETIRE = 11
SHARE = 12

COMMANDS = {
    READY: "READY",
    WELCOME: "WELCOME",
    REQUEST: "REQUEST",
    REPLY: "REPLY",
    HEARTBEAT: "HEARTBEAT",
    DRAIN: "DRAIN",
    DISCONNECT: "DISCONNECT",
    CANCEL: "CANCEL",
    LOST: "LOST",
    STATS: "STATS",
    RETIRE: "RETIRE",
    SHARE: "SHARE",
}

#: The sender takes several replies in one message; without it each reply is a message.
FLAG_COALESCE = 1
#: Second attempt: the worker of the first one died. Set by the broker.
FLAG_REDELIVERED = 2
#: The body frames are large: worth receiving without a copy. A hint only.
FLAG_BODY_LARGE = 4
#: Nobody waits for the answer: there is no reply, whatever becomes of the request.
FLAG_ONE_WAY = 8
#: The last body frame is an idempotency key, and the broker's.
FLAG_KEYED = 16
#: The request goes before those that wait without a flag, or behind them; both together are wrong.
FLAG_HIGH = 32
FLAG_LOW = 64
#: Whoever called records the trace of this request, and wants us to (W3C trace flags).
FLAG_SAMPLED = 128

FLAGS = {
    FLAG_COALESCE: "COALESCE",
    FLAG_REDELIVERED: "REDELIVERED",
    FLAG_BODY_LARGE: "BODY_LARGE",
    FLAG_ONE_WAY: "ONE_WAY",
    FLAG_KEYED: "KEYED",
    FLAG_HIGH: "HIGH",
    FLAG_LOW: "LOW",
    FLAG_SAMPLED: "SAMPLED",
}

#: What asks for a level of its own, and the names of the three levels.
FLAGS_PRIORITY = FLAG_HIGH | FLAG_LOW
PRIORITIES = {"high": FLAG_HIGH, "normal": 0, "low": FLAG_LOW}

#: Body encodings. A reply in dialect NATIVE with a status other than OK is a failure that the bus
#: itself reports, whatever the request's dialect was.
DIALECT_NATIVE = 0
DIALECT_MS_SERVICE = 1
DIALECT_RESTFUL = 2
DIALECT_OIP = 3
DIALECT_OIP_JSON = 4

DIALECTS = {
    DIALECT_NATIVE: "NATIVE",
    DIALECT_MS_SERVICE: "MS_SERVICE",
    DIALECT_RESTFUL: "RESTFUL",
    DIALECT_OIP: "OIP",
    DIALECT_OIP_JSON: "OIP_JSON",
}

#: magic, version, command, flags, dialect, status, request id, budget_ms, instance count,
#: body frames, service key size, trace id, span id; then the service key, then the method.
FIXED = struct.Struct("!2sBBHBBQIHBB16s8s")
FIXED_BYTES: int = FIXED.size
assert FIXED_BYTES == 48

#: The four bytes that every request starts with: one comparison proves magic, version, command.
REQUEST_PREFIX = MAGIC + bytes((VERSION, REQUEST))
REPLY_PREFIX = MAGIC + bytes((VERSION, REPLY))

#: The labels of a servable: what version 0 means, less a canary; and the canary, while one stands.
STABLE = "stable"
CANARY = "canary"
LABELS = (STABLE, CANARY)

#: What the names of hidden methods begin with: one subgraph of one model each.
CALL_PREFIX = "@call_"

FLAGS_OFFSET = 4
#: All flags so far are in the second byte of the two.
FLAGS_LOW_BYTE = FLAGS_OFFSET + 1
DIALECT_OFFSET = 6
STATUS_OFFSET = 7
REQUEST_ID_OFFSET = 8
BUDGET_OFFSET = 16
INSTANCE_COUNT_OFFSET = 20
BODY_FRAMES_OFFSET = 22
SERVICE_SIZE_OFFSET = 23
TRACE_OFFSET = 24

#: Replies of a broker have in the place of the budget for how many microseconds the request waited
#: for a worker; more than this is this.
WAITED_US_MAX = 0xFFFF_FFFF

#: request id and budget, next to each other: what the broker rewrites.
RESTAMP = struct.Struct("!QI")
REQUEST_ID = struct.Struct("!Q")

#: flags, dialect, request id, budget_ms, service key size, trace id of a request's head.
REQUEST_READ = struct.Struct("!4xHBxQI3xB16s")

HEAD_BYTES_MAX = FIXED_BYTES + limits.SERVICE_KEY_BYTES_MAX + limits.METHOD_BYTES_MAX

NO_TRACE = bytes(16)
NO_SPAN = bytes(8)


class Head(NamedTuple):
    """A head, field by field. For cold paths and tests; hot paths slice the bytes."""

    command: int
    flags: int = 0
    dialect: int = DIALECT_NATIVE
    status: int = 0
    request_id: int = 0
    budget_ms: int = 0
    instance_count: int = 0
    body_frames: int = 0
    service: bytes = b""
    method: bytes = b""
    trace_id: bytes = NO_TRACE
    span_id: bytes = NO_SPAN


def pack(head: Head) -> bytes:
    """Encode a head frame. Asserts the limits: a head out of bounds is our own mistake."""
    assert len(head.service) <= limits.SERVICE_KEY_BYTES_MAX, head
    assert len(head.method) <= limits.METHOD_BYTES_MAX, head
    assert 0 <= head.body_frames <= limits.BODY_FRAMES_MAX, head
    fixed = FIXED.pack(
        MAGIC,
        VERSION,
        head.command,
        head.flags,
        head.dialect,
        head.status,
        head.request_id,
        head.budget_ms,
        min(head.instance_count, limits.INSTANCE_COUNT_MAX),
        head.body_frames,
        len(head.service),
        head.trace_id,
        head.span_id,
    )
    return fixed + head.service + head.method


def unpack(frame: bytes) -> Head:
    """Decode a head frame. Raises RemoteProtocolError naming the rule that is broken."""
    if len(frame) < FIXED_BYTES:
        raise RemoteProtocolError(f"head of {len(frame)} B is shorter than {FIXED_BYTES} B")
    if len(frame) > HEAD_BYTES_MAX:
        raise RemoteProtocolError(f"head of {len(frame)} B exceeds head_bytes_max {HEAD_BYTES_MAX}")
    (magic, version, command, flags, dialect, status, request_id, budget_ms, instance_count,
     body_frames, service_size, trace_id, span_id) = FIXED.unpack_from(frame)  # fmt: skip
    if magic != MAGIC:
        raise RemoteProtocolError(f"magic {magic!r} is not {MAGIC!r}")
    if version != VERSION:
        raise RemoteProtocolError(f"protocol version {version} is not {VERSION}")
    if command not in COMMANDS:
        raise RemoteProtocolError(f"command {command} is unknown")
    method_at = FIXED_BYTES + service_size
    if service_size > limits.SERVICE_KEY_BYTES_MAX or method_at > len(frame):
        raise RemoteProtocolError(f"service key of {service_size} B does not fit the head")
    return Head(
        command,
        flags,
        dialect,
        status,
        request_id,
        budget_ms,
        instance_count,
        body_frames,
        frame[FIXED_BYTES:method_at],
        frame[method_at:],
        trace_id,
        span_id,
    )


def pack_reply(
    flags: int,
    dialect: int,
    status: int,
    request_id: int,
    instance_count: int,
    body_frames: int,
    trace_id: bytes,
) -> bytes:
    """The head frame of a reply, for hot paths; the same as `pack` of these fields."""
    assert 0 <= body_frames <= limits.BODY_FRAMES_MAX, body_frames
    return FIXED.pack(
        MAGIC, VERSION, REPLY, flags, dialect, status, request_id, 0,
        min(instance_count, limits.INSTANCE_COUNT_MAX), body_frames, 0, trace_id, NO_SPAN,
    )  # fmt: skip


def span_id_of(head: bytes) -> bytes:
    """The span id of a head that is known to be well-formed."""
    return head[FIXED_BYTES - len(NO_SPAN) : FIXED_BYTES]


def restamp(head: bytes, request_id: int, budget_ms: int) -> bytes:
    """The same head under another number: a ticket towards a worker, the client's id back."""
    return head[:REQUEST_ID_OFFSET] + RESTAMP.pack(request_id, budget_ms) + head[20:]


def with_context(head: bytes, trace_id: bytes, span_id: bytes, is_sampled: bool) -> bytes:
    """The same head in the trace of a caller."""
    if is_sampled:
        head = with_flag(head, FLAG_SAMPLED)
    return head[:TRACE_OFFSET] + trace_id + span_id + head[FIXED_BYTES:]


def with_flag(head: bytes, flag: int) -> bytes:
    """The same head with a flag of the low byte set."""
    at = FLAGS_LOW_BYTE
    return head[:at] + bytes((head[at] | flag,)) + head[at + 1 :]


def without_flag(head: bytes, flag: int) -> bytes:
    """The same head with a flag of the low byte, or several, not set."""
    at = FLAGS_LOW_BYTE
    return head[:at] + bytes((head[at] & ~flag,)) + head[at + 1 :]


def is_keyed(head: bytes) -> bool:
    """Whether a request has an idempotency key."""
    return bool(head[FLAGS_LOW_BYTE] & FLAG_KEYED)


def service_of(head: bytes) -> bytes:
    """The service key `servable/version` of a head that is known to be well-formed."""
    return head[FIXED_BYTES : FIXED_BYTES + head[SERVICE_SIZE_OFFSET]]


def method_of(head: bytes) -> bytes:
    """The method name of a head that is known to be well-formed."""
    return head[FIXED_BYTES + head[SERVICE_SIZE_OFFSET] :]


def service_key(servable: str, version: int) -> bytes:
    """The routing unit `servable/version`; version 0 stands for the latest.

    Raises: RemoteProtocolError if it is longer than `SERVICE_KEY_BYTES_MAX`.
    """
    key = f"{servable}/{version}".encode()
    if len(key) > limits.SERVICE_KEY_BYTES_MAX:
        raise RemoteProtocolError(
            f"service key of {len(key)} B exceeds service_key_bytes_max "
            f"{limits.SERVICE_KEY_BYTES_MAX}"
        )
    return key


def split_service_key(key: bytes) -> tuple[str, int]:
    """The servable and the version of a service key. Raises RemoteProtocolError."""
    servable, slash, version = key.rpartition(b"/")
    if not servable or not slash or not version.isdigit():
        raise RemoteProtocolError(f"service key {key!r} is not servable/version")
    try:
        return servable.decode(), int(version)
    except UnicodeDecodeError:
        raise RemoteProtocolError(f"service key {key!r} is not UTF-8") from None


def broken_rule(head: bytes, came: int) -> str:
    """What is wrong with a head that is too long, or is followed by too few body frames."""
    if len(head) > HEAD_BYTES_MAX:
        return f"head of {len(head)} B exceeds head_bytes_max {HEAD_BYTES_MAX}"
    return f"head promises {head[BODY_FRAMES_OFFSET]} body frames, {came} came"


def split_parcels(parts: list[Any]) -> list[tuple[bytes, list[Any]]]:
    """Split a message into its parcels: each a head and its body frames.

    parts: the frames of one message, without routing id and empty delimiter.
    Raises: RemoteProtocolError if a head is malformed or promises frames that are not there.
    """
    parcels = []
    at = 0
    while at < len(parts):
        head = bytes(parts[at])
        if len(head) < FIXED_BYTES or head[:2] != MAGIC:
            raise RemoteProtocolError(f"frame {at} of {len(head)} B is not a head")
        end = at + 1 + head[BODY_FRAMES_OFFSET]
        if end > len(parts):
            raise RemoteProtocolError(
                f"head promises {head[BODY_FRAMES_OFFSET]} body frames, {len(parts) - at - 1} came"
            )
        parcels.append((head, parts[at + 1 : end]))
        at = end
    return parcels
