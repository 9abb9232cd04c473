"""MDP clients: 7/MDP, 18/MDP and majortomo's variant of it, put into native requests and back.

    7/MDP      […, ""] MDPC01      service body…    ->  […, ""] MDPC01      service body…
    18/MDP     MDPC02 0x01         service body…    ->  MDPC02 0x03         service body…
    majortomo  […, ""] MDPC02 0x02 service body…    ->  […, ""] MDPC02 0x04 body…

Up to its first empty frame a message is an envelope, which is given back; 18/MDP may have one.
The service is `servable`, `servable/version` or `servable/label`. Body frame 0 of a request is the
native meta map with a few keys more, which are read here without a look at the instances; the
others are native tensor frames. So the body travels on as it is, to a worker that knows nothing of
MDP. A reply is the worker's, with `status` and the caller's `id` put in front. Rules and examples:
docs/PROTOCOL.md §11.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from protocol import head as heads
from protocol import limits, native, status
from protocol.errors import RemoteProtocolError, RequestError

#: What the first frame of every MDP client begins with.
MAGIC = b"MDPC"
HEADER_1 = b"MDPC01"
HEADER_2 = b"MDPC02"

#: Commands of 18/MDP; this broker sends no PARTIAL (0x02).
REQUEST = b"\x01"
FINAL = b"\x03"

#: The same of majortomo, whose clients number the commands as 18/MDP numbers those of workers.
MAJORTOMO_REQUEST = b"\x02"
MAJORTOMO_FINAL = b"\x04"

#: 8/MMI: services that the broker answers itself, and what it answers.
MMI_PREFIX = b"mmi."
MMI_SERVICE = b"mmi.service"
MMI_FOUND = b"200"
MMI_NOT_FOUND = b"404"
MMI_UNKNOWN = b"501"

#: Keys of a request's map that are for the broker.
OPTIONS = frozenset(("budget_ms", "id", "instance_count", "key", "method", "one_way", "priority"))

#: How a reply's map begins if it has up to 15 items less those that are put in front.
FIXMAP = 0x80
REPLY_ITEMS_MAX = 13

KEY_STATUS = msgpack.packb("status")
KEY_ID = msgpack.packb("id")


class Caller:
    """Who asked, and how the reply to this one request begins. Each request has one of its own."""

    __slots__ = ("address", "call_id", "prefix")

    def __init__(self, address: tuple[bytes, ...], prefix: tuple[bytes, ...]) -> None:
        #: routing id and envelope
        self.address = address
        #: the frames of the reply before its body
        self.prefix = prefix
        #: the `id` of the request's map as msgpack, empty if it has none
        self.call_id = b""


class Call:
    """An MDP request: its caller, the service that it names, its body frames."""

    __slots__ = ("caller", "frames", "service")

    def __init__(self, caller: Caller, service: bytes, frames: Sequence[Any]) -> None:
        self.caller = caller
        self.service = service
        self.frames = frames


def read_call(address: tuple[bytes, ...], parts: Sequence[Any]) -> Call:
    """Read the frames of MDP. address: routing id and envelope; parts: what follows them.

    Raises: RemoteProtocolError if it cannot even be answered.
    """
    header = bytes(parts[0])
    at = 1 if header == HEADER_1 else 2
    if header not in (HEADER_1, HEADER_2) or len(parts) <= at:
        raise RemoteProtocolError(f"{len(parts)} frames with header {header!r:.40} are no request")
    if len(parts[at]) > limits.SERVICE_KEY_BYTES_MAX:
        raise RemoteProtocolError(
            f"service of {len(parts[at])} B exceeds service_key_bytes_max "
            f"{limits.SERVICE_KEY_BYTES_MAX}"
        )
    service = bytes(parts[at])
    if header == HEADER_1:
        prefix: tuple[bytes, ...] = (HEADER_1, service)
    elif parts[1] == REQUEST:
        prefix = (HEADER_2, FINAL, service)
    elif parts[1] == MAJORTOMO_REQUEST and len(address) > 1:
        prefix = (HEADER_2, MAJORTOMO_FINAL)
    else:
        raise RemoteProtocolError(f"command {bytes(parts[1])!r:.40} is not one that a client sends")
    return Call(Caller(address, prefix), service, parts[at + 1 :])


def service_key(service: bytes) -> bytes:
    """The routing unit that a service name of MDP stands for."""
    _, slash, last = service.rpartition(b"/")
    return service if slash and last.isdigit() else service + b"/0"


def encode_request(call: Call) -> list[Any]:
    """Head and body frames of the native request. Sets the caller's `call_id`.

    Raises: RequestError (malformed) naming the rule that is broken.
    """
    frames = call.frames
    if not frames:
        raise RequestError("malformed", "the request has no body: a msgpack map is expected")
    if len(frames) >= limits.BODY_FRAMES_MAX:  # one is kept for a key
        raise RequestError(
            "malformed",
            f"{len(frames)} body frames exceed {limits.BODY_FRAMES_MAX - 1}",
        )
    key = service_key(call.service)
    if len(key) > limits.SERVICE_KEY_BYTES_MAX:
        raise RequestError(
            "malformed",
            f"service key of {len(key)} B exceeds service_key_bytes_max "
            f"{limits.SERVICE_KEY_BYTES_MAX}",
        )
    options = read_options(frames[0])
    call.caller.call_id = _call_id(options)
    frames = [*frames, *_key(options)]
    head = heads.Head(
        heads.REQUEST,
        _priority(options) | _one_way(options) | (heads.FLAG_KEYED if "key" in options else 0),
        budget_ms=_integer(options, "budget_ms", limits.BUDGET_MS_MAX),
        instance_count=_integer(options, "instance_count", limits.INSTANCE_COUNT_MAX),
        body_frames=len(frames),
        service=key,
        method=_method(options),
    )
    return [heads.pack(head), *frames]


def read_options(frame: Any) -> dict[str, Any]:
    """The keys of a request's map that are for the broker; the instances are skipped unread.

    Raises: RequestError (malformed, body_too_large).
    """
    if len(frame) > limits.MDP_META_BYTES_MAX:
        raise RequestError(
            "body_too_large",
            f"body frame 0 of {len(frame)} B exceeds mdp_meta_bytes_max "
            f"{limits.MDP_META_BYTES_MAX}: put large tensors into frames of their own",
        )
    # Values that are read are plain ones, so nothing is built that is larger than its bytes.
    unpacker = msgpack.Unpacker(
        raw=False,
        strict_map_key=True,
        max_buffer_size=limits.MDP_META_BYTES_MAX,
        max_array_len=0,
        max_map_len=0,
        max_str_len=limits.METHOD_BYTES_MAX,
        max_bin_len=0,
        max_ext_len=0,
    )
    options: dict[str, Any] = {}
    try:
        unpacker.feed(frame)
        for _ in range(unpacker.read_map_header()):
            key = unpacker.unpack()
            if key in OPTIONS:
                options[key] = unpacker.unpack()
            else:
                unpacker.skip()
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        text = str(error) or type(error).__name__
        raise RequestError("malformed", f"body frame 0 is not a msgpack map: {text}") from None
    return options


def _method(options: dict[str, Any]) -> bytes:
    method = options.get("method")
    if not isinstance(method, str) or not method:
        raise RequestError("malformed", f"key 'method' is {method!r}, not the name of a method")
    return method.encode()


def _integer(options: dict[str, Any], name: str, highest: int) -> int:
    value = options.get(name, 0)
    if type(value) is not int or value < 0:
        raise RequestError("malformed", f"key {name!r} is {value!r}, not an integer >= 0")
    return min(value, highest)


def _priority(options: dict[str, Any]) -> int:
    priority = options.get("priority", "normal")
    flag = heads.PRIORITIES.get(priority) if isinstance(priority, str) else None
    if flag is None:
        names = ", ".join(heads.PRIORITIES)
        raise RequestError("malformed", f"key 'priority' is {priority!r}, not one of {names}")
    return flag


def _key(options: dict[str, Any]) -> list[bytes]:
    key = options.get("key")
    if key is None and "key" not in options:
        return []
    if not isinstance(key, str) or not 1 <= len(key.encode()) <= limits.KEY_BYTES_MAX:
        limit = limits.KEY_BYTES_MAX
        raise RequestError(
            "malformed", f"key 'key' is {key!r:.100}, not text of 1 to key_bytes_max {limit} B"
        )
    return [key.encode()]


def _one_way(options: dict[str, Any]) -> int:
    is_one_way = options.get("one_way", False)
    if not isinstance(is_one_way, bool):
        raise RequestError("malformed", f"key 'one_way' is {is_one_way!r}, not true or false")
    return heads.FLAG_ONE_WAY if is_one_way else 0


def _call_id(options: dict[str, Any]) -> bytes:
    call_id = options.get("id")
    if call_id is None:
        return b""
    if type(call_id) not in (int, str):
        raise RequestError("malformed", f"key 'id' is {call_id!r}, neither an integer nor text")
    packed: bytes = msgpack.packb(call_id)
    return packed


def encode_reply(caller: Caller, parts: Sequence[Any]) -> list[Any]:
    """The frames of a reply behind the caller's address. parts: head and body frames, native."""
    head, *frames = parts
    code = head[heads.STATUS_OFFSET]
    meta = bytes(frames[0]) if frames else b""
    if not meta or not FIXMAP <= meta[0] <= FIXMAP + REPLY_ITEMS_MAX:
        text = f"the reply of the worker is no map of up to {REPLY_ITEMS_MAX} items"
        code = status.REASONS["failed"].grpc
        frames = list(native.encode_failure(None, "failed", text))
        meta = bytes(frames[0])
    items, extra = 1, KEY_STATUS + bytes((code,))
    if caller.call_id:
        items, extra = 2, KEY_ID + caller.call_id + extra
    body = bytes((meta[0] + items,)) + extra + meta[1:]
    return [*caller.prefix, body, *frames[1:]]
