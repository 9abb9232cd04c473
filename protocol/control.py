"""The control messages: what workers, broker and supervisor say to each other about themselves.

A control message is one parcel: a head with the command, and one body frame with a msgpack map.
`pack` builds the parcel; one `unpack_…` per command reads the body frames of a parcel whose head
named that command. Unknown keys are ignored, so that a newer peer may say more; a missing key or
one of a wrong type raises RemoteProtocolError that names it. Byte table: docs/PROTOCOL.md §3.

    worker -> broker       READY, HEARTBEAT, DRAIN, DISCONNECT
    broker -> worker       WELCOME, HEARTBEAT, DRAIN, DISCONNECT
    supervisor -> broker   LOST, RETIRE, SHARE
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from protocol import head, limits, method_tensors
from protocol.errors import RemoteProtocolError
from protocol.native import Buffer, pack_meta, unpack_meta
from protocol.values import MethodSignature

#: Unsigned numbers on the control wire end here (msgpack's own limit is one bit more).
NUMBER_MAX = (1 << 63) - 1


class Device(NamedTuple):
    """Where a worker really computes, as its backend reports it. target: CPU, Ascend or GPU."""

    target: str
    id: int


class Ready(NamedTuple):
    """A worker offers itself: it has loaded and warmed one version of a servable.

    worker_id: name of its slot, stable over restarts. generation: incarnation of the slot, grows.
    service: `servable/version`. credit: requests that it will hold at once, 1..CREDIT_MAX.
    methods: in the order of their declaration; what is known of their tensors is with them.
    is_extra: it has no models and takes only requests of the methods that it offers.
    """

    worker_id: str
    generation: int
    service: str
    credit: int
    methods: tuple[MethodSignature, ...]
    device: Device
    pid: int
    servable: str
    is_extra: bool = False


class Welcome(NamedTuple):
    """The broker accepts a worker and tells the rhythm of heartbeats to both ends.

    liveness: silent intervals after which the other end is taken for dead.
    """

    heartbeat_interval_ms: int
    liveness: int


class Histogram(NamedTuple):
    """What a worker has counted of one thing since its start.

    counts: how many were at most each of the bounds and above the one before, and behind them how
    many were above all. total: the sum. Without bounds it is a plain counter.
    """

    name: str
    labels: tuple[tuple[str, str], ...]
    bounds: tuple[int, ...]
    counts: tuple[int, ...]
    total: int


Numbers = tuple[Histogram, ...]


class Heartbeat(NamedTuple):
    """A sign of life; a worker adds its progress, because a thread that beats proves nothing.

    batch_seq: number of the batch that it runs, or of the last one. busy_ms: how long that batch
    has been running; 0 when idle. patience_ms: how much longer it may take, because it compiles.
    numbers: all that it has counted since its start.
    """

    batch_seq: int = 0
    busy_ms: int = 0
    patience_ms: int = 0
    numbers: Numbers = ()


class Drain(NamedTuple):
    """From a worker: send me nothing more. From the broker: acknowledged, nothing will come."""


#: Why a broker that was told to go disconnects its workers.
GOODBYE = "the broker goes down"


class Disconnect(NamedTuple):
    """The sender takes the connection for ended. reason: for logs."""

    reason: str


class Lost(NamedTuple):
    """The supervisor saw this incarnation of a worker die. reason: for logs and error texts.

    started: tickets that it had begun to compute, the last some hundreds; None = nobody knows.
    is_blameless: it was killed by order, so none of its requests is to blame.
    """

    worker_id: str
    generation: int
    reason: str
    started: tuple[int, ...] | None = None
    is_blameless: bool = False


class Retire(NamedTuple):
    """The supervisor starts no more workers of a service: nobody shall wait for one."""

    service: str
    reason: str


class Share(NamedTuple):
    """Which versions of a servable clients get that name none, or a label instead of one.

    shares: (version, weight) in the requests for version 0; without weights above 0, version 0 is
    the highest one again. labels: (label, version); a label that is not there means version 0.
    """

    servable: str
    shares: tuple[tuple[int, int], ...]
    labels: tuple[tuple[str, int], ...] = ()


Control = Ready | Welcome | Heartbeat | Drain | Disconnect | Lost | Retire | Share

COMMAND_OF = {
    Ready: head.READY,
    Welcome: head.WELCOME,
    Heartbeat: head.HEARTBEAT,
    Drain: head.DRAIN,
    Disconnect: head.DISCONNECT,
    Lost: head.LOST,
    Retire: head.RETIRE,
    Share: head.SHARE,
}


def pack(control: Control) -> list[bytes]:
    """The parcel of a control message: its head and its one body frame."""
    command = COMMAND_OF[type(control)]
    body = _ready_map(control) if isinstance(control, Ready) else control._asdict()
    return [head.pack(head.Head(command, body_frames=1)), pack_meta(body)]


def _ready_map(ready: Ready) -> dict[str, Any]:
    assert 1 <= ready.credit <= limits.CREDIT_MAX, ready
    methods = [[method.name, method.inputs, method.outputs] for method in ready.methods]
    return ready._asdict() | {
        "methods": methods,
        "tensors": method_tensors.as_document(ready.methods),
        "device": ready.device._asdict(),
    }


def unpack_ready(frames: Sequence[Buffer]) -> Ready:
    """Read a READY. Raises RemoteProtocolError; a credit above CREDIT_MAX is one of the errors."""
    body = _body(frames)
    servable = _text(body, "servable")
    service = _text(body, "service")
    _, version = head.split_service_key(service.encode())
    if not 1 <= version <= NUMBER_MAX:
        raise RemoteProtocolError(f"version {version} is not one of 1..{NUMBER_MAX}")
    if len(service.encode()) > limits.SERVICE_KEY_BYTES_MAX:
        raise RemoteProtocolError(
            f"service of {len(service.encode())} B exceeds service_key_bytes_max "
            f"{limits.SERVICE_KEY_BYTES_MAX}"
        )
    return Ready(
        worker_id=_text(body, "worker_id"),
        generation=_number(body, "generation"),
        service=service,
        credit=_number(body, "credit", 1, limits.CREDIT_MAX),
        methods=_methods(body, servable),
        device=_device(body),
        pid=_number(body, "pid"),
        servable=servable,
        is_extra=_flag(body, "is_extra"),
    )


def unpack_welcome(frames: Sequence[Buffer]) -> Welcome:
    """Read a WELCOME. Raises RemoteProtocolError; both numbers are at least 1."""
    body = _body(frames)
    return Welcome(_number(body, "heartbeat_interval_ms", 1), _number(body, "liveness", 1))


def unpack_heartbeat(frames: Sequence[Buffer]) -> Heartbeat:
    """Read a HEARTBEAT; an empty map is a valid one. Raises RemoteProtocolError."""
    body = _body(frames)
    return Heartbeat(
        _number(body, "batch_seq") if "batch_seq" in body else 0,
        _number(body, "busy_ms") if "busy_ms" in body else 0,
        _number(body, "patience_ms") if "patience_ms" in body else 0,
        _numbers(body),
    )


def unpack_drain(frames: Sequence[Buffer]) -> Drain:
    """Read a DRAIN. Raises RemoteProtocolError."""
    _body(frames)
    return Drain()


def unpack_disconnect(frames: Sequence[Buffer]) -> Disconnect:
    """Read a DISCONNECT. Raises RemoteProtocolError."""
    return Disconnect(_text(_body(frames), "reason", size_min=0))


def unpack_retire(frames: Sequence[Buffer]) -> Retire:
    """Read a RETIRE. Raises RemoteProtocolError."""
    body = _body(frames)
    return Retire(_text(body, "service"), _text(body, "reason"))


def unpack_share(frames: Sequence[Buffer]) -> Share:
    """Read a SHARE. Raises RemoteProtocolError."""
    body = _body(frames)
    shares = _field(body, "shares")
    if not isinstance(shares, list) or not all(map(_is_share, shares)):
        raise RemoteProtocolError("key 'shares' is not a list of [version, weight]")
    labels = body.get("labels", [])
    if not isinstance(labels, list) or not all(map(_is_label, labels)):
        raise RemoteProtocolError("key 'labels' is not a list of [label, version]")
    return Share(
        _text(body, "servable"),
        tuple((version, weight) for version, weight in shares),
        tuple((label, version) for label, version in labels),
    )


def _is_share(item: Any) -> bool:
    return (
        isinstance(item, list)
        and len(item) == 2
        and all(type(number) is int and number >= 0 for number in item)
    )


def _is_label(item: Any) -> bool:
    return (
        isinstance(item, list)
        and len(item) == 2
        and isinstance(item[0], str)
        and type(item[1]) is int
        and item[1] >= 1
    )


def unpack_lost(frames: Sequence[Buffer]) -> Lost:
    """Read a LOST. Raises RemoteProtocolError."""
    body = _body(frames)
    return Lost(
        _text(body, "worker_id"),
        _number(body, "generation"),
        _text(body, "reason", size_min=0),
        _tickets(body, "started"),
        _flag(body, "is_blameless"),
    )


# ---------------------------------------------------------------- fields


def _body(frames: Sequence[Buffer]) -> dict[str, Any]:
    if len(frames) != 1:
        raise RemoteProtocolError(f"a control message has 1 body frame, not {len(frames)}")
    return unpack_meta(frames[0])


def _field(body: Mapping[str, Any], key: str) -> Any:
    if key not in body:
        raise RemoteProtocolError(f"key {key!r} is missing")
    return body[key]


def _text(body: Mapping[str, Any], key: str, size_min: int = 1) -> str:
    value = _field(body, key)
    if not isinstance(value, str):
        raise RemoteProtocolError(f"key {key!r} is a {type(value).__name__}, not a text")
    if len(value) < size_min:
        raise RemoteProtocolError(f"key {key!r} is empty")
    return value


def _number(body: Mapping[str, Any], key: str, least: int = 0, most: int = NUMBER_MAX) -> int:
    value = _field(body, key)
    if type(value) is not int:  # a bool is an int to Python, not to the wire
        raise RemoteProtocolError(f"key {key!r} is a {type(value).__name__}, not a number")
    if not least <= value <= most:
        raise RemoteProtocolError(f"key {key!r} is {value}, not one of {least}..{most}")
    return value


def _device(body: Mapping[str, Any]) -> Device:
    value = _field(body, "device")
    if not isinstance(value, dict):
        raise RemoteProtocolError(f"key 'device' is a {type(value).__name__}, not a map")
    return Device(_text(value, "target"), _number(value, "id"))


def _flag(body: Mapping[str, Any], key: str) -> bool:
    """A bool that MAY be left out, which is False."""
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise RemoteProtocolError(f"key {key!r} is {value!r}, not a bool")
    return value


def _tickets(body: Mapping[str, Any], key: str) -> tuple[int, ...] | None:
    """A list of tickets that MAY be left out, or nil."""
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise RemoteProtocolError(f"key {key!r} is not a list of tickets")
    return tuple(value)


def _numbers(body: Mapping[str, Any]) -> Numbers:
    value = body.get("numbers", [])
    if not isinstance(value, list) or len(value) > limits.WORKER_SERIES_MAX:
        raise RemoteProtocolError(
            f"key 'numbers' is not a list of at most {limits.WORKER_SERIES_MAX} series"
        )
    return tuple(map(_histogram, value))


def _histogram(item: Any) -> Histogram:
    try:
        name, labels, bounds, counts, total = item
        histogram = Histogram(
            name, tuple((key, text) for key, text in labels), tuple(bounds), tuple(counts), total
        )
    except (TypeError, ValueError):
        raise RemoteProtocolError(f"{item!r:.100} is not a series of numbers") from None
    texts = (name, *(text for pair in histogram.labels for text in pair))
    numbers = (*histogram.bounds, *histogram.counts, total)
    if not all(isinstance(text, str) for text in texts) or not all(map(_is_count, numbers)):
        raise RemoteProtocolError(f"{item!r:.100} is not a series of numbers")
    if len(counts) != len(bounds) + 1 or len(bounds) > limits.BOUNDS_MAX:
        raise RemoteProtocolError(f"{len(counts)} counts do not go with {len(bounds)} bounds")
    return histogram


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number <= NUMBER_MAX


def _methods(body: Mapping[str, Any], servable: str) -> tuple[MethodSignature, ...]:
    value = _field(body, "methods")
    if not isinstance(value, list):
        raise RemoteProtocolError(f"key 'methods' is a {type(value).__name__}, not a list")
    methods = tuple(_method(item, servable) for item in value)
    return method_tensors.added_to(methods, body.get("tensors", {}))


def _method(item: Any, servable: str) -> MethodSignature:
    if not isinstance(item, list) or len(item) != 3:
        raise RemoteProtocolError(f"a method is [name, [inputs], [outputs]], not {item!r:.100}")
    name, inputs, outputs = item
    if not isinstance(name, str) or not name:
        raise RemoteProtocolError(f"method name {name!r:.100} is not a text")
    if len(name.encode()) > limits.METHOD_BYTES_MAX:
        raise RemoteProtocolError(
            f"method name of {len(name.encode())} B exceeds method_bytes_max "
            f"{limits.METHOD_BYTES_MAX}"
        )
    for names in (inputs, outputs):
        if not isinstance(names, list) or not all(isinstance(text, str) for text in names):
            raise RemoteProtocolError(f"method {name}: {names!r:.100} is not a list of texts")
    return MethodSignature(servable, name, tuple(inputs), tuple(outputs))
