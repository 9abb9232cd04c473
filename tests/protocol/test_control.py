"""Control messages: what is packed is read back; what is wrong is named."""

import pytest

from protocol import control, head, limits, method_tensors, native
from protocol.errors import RemoteProtocolError
from protocol.values import (
    UNKNOWN_TENSORS,
    InstanceSpec,
    MethodSignature,
    MethodTensors,
)

READY = control.Ready(
    worker_id="add/1/device0",
    generation=3,
    service="add/1",
    credit=16,
    methods=(MethodSignature("add", "add_common", ("x1", "x2"), ("y",)),),
    device=control.Device("CPU", 0),
    pid=4711,
    servable="add",
)

EVERY = [
    (READY, head.READY, control.unpack_ready),
    (control.Welcome(500, 6), head.WELCOME, control.unpack_welcome),
    (control.Heartbeat(7, 12), head.HEARTBEAT, control.unpack_heartbeat),
    (control.Drain(), head.DRAIN, control.unpack_drain),
    (control.Disconnect("server stops"), head.DISCONNECT, control.unpack_disconnect),
    (control.Lost("add/1/device0", 3, "signal 9"), head.LOST, control.unpack_lost),
    (control.Lost("add/1/device0", 3, "signal 9", (4, 5)), head.LOST, control.unpack_lost),
    (control.Retire("add/1", "slot FAILED"), head.RETIRE, control.unpack_retire),
    (
        control.Share("add", ((1, 3), (2, 1)), (("canary", 2),)),
        head.SHARE,
        control.unpack_share,
    ),
]


def frames_of(body: dict[str, object]) -> list[bytes]:
    return [native.pack_meta(body)]


def ready_with(**changes: object) -> list[bytes]:
    body = native.unpack_meta(control.pack(READY)[1])
    return frames_of(body | changes)


@pytest.mark.parametrize(("message", "command", "unpack"), EVERY)
def test_every_control_message_is_read_back_as_it_was_packed(message, command, unpack):
    parts = control.pack(message)
    ((head_frame, frames),) = head.split_parcels(parts)
    assert head.unpack(head_frame).command == command
    assert unpack(frames) == message


ADD = READY.methods[0]
FLOAT = InstanceSpec("float32", (2, -1))


@pytest.mark.parametrize(
    "tensors",
    [
        MethodTensors(True, (FLOAT, None), (InstanceSpec("bytes", ()),), 8),
        MethodTensors(False, (), (FLOAT,), 1),
    ],
)
def test_what_is_known_of_tensors_travels_with_ready(tensors):
    ready = READY._replace(methods=(ADD._replace(tensors=tensors),))
    body = native.unpack_meta(control.pack(ready)[1])
    assert control.unpack_ready(frames_of(body)) == ready
    assert method_tensors.read("add_common", body["tensors"]) == tensors
    assert method_tensors.read("other", body["tensors"]) == UNKNOWN_TENSORS


def test_a_ready_without_tensors_says_that_nothing_is_known():
    body = native.unpack_meta(control.pack(READY)[1])
    del body["tensors"]
    (method,) = control.unpack_ready(frames_of(body)).methods
    assert method.tensors is UNKNOWN_TENSORS


@pytest.mark.parametrize(
    "item",
    [
        5,
        [True, [], []],
        [1, [], [], 0],
        [True, [None], [], 0],
        [True, [], [5], 0],
        [True, [], [["float32"]], 0],
        [True, [], [["complex", []]], 0],
        [True, [], [["float32", [-2]]], 0],
        [True, [], [["float32", [1] * 33]], 0],
        [True, [], [], -1],
        [True, [], [], True],
    ],
)
def test_tensors_that_are_none_break_the_protocol(item):
    with pytest.raises(RemoteProtocolError, match="tensors of method add_common are not"):
        control.unpack_ready(ready_with(tensors={"add_common": item}))
    with pytest.raises(RemoteProtocolError, match="key 'tensors' is a int, not a map"):
        control.unpack_ready(ready_with(tensors=5))


def test_ready_on_the_wire_is_the_documented_map():
    assert native.unpack_meta(control.pack(READY)[1]) == {
        "worker_id": "add/1/device0",
        "generation": 3,
        "service": "add/1",
        "credit": 16,
        "methods": [["add_common", ["x1", "x2"], ["y"]]],
        "tensors": {},
        "device": {"target": "CPU", "id": 0},
        "pid": 4711,
        "servable": "add",
        "is_extra": False,
    }


def test_an_empty_heartbeat_is_valid_and_idle():
    assert control.unpack_heartbeat(frames_of({})) == control.Heartbeat(0, 0)


def test_unknown_keys_are_ignored():
    frames = frames_of({"heartbeat_interval_ms": 500, "liveness": 6, "colour": "blue"})
    assert control.unpack_welcome(frames) == control.Welcome(500, 6)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"credit": 0}, "key 'credit' is 0, not one of 1..1024"),
        ({"credit": 1025}, "key 'credit' is 1025, not one of 1..1024"),
        ({"credit": True}, "key 'credit' is a bool, not a number"),
        ({"generation": -1}, "key 'generation' is -1"),
        ({"generation": "3"}, "key 'generation' is a str, not a number"),
        ({"worker_id": ""}, "key 'worker_id' is empty"),
        ({"worker_id": b"w"}, "key 'worker_id' is a bytes, not a text"),
        ({"service": "add"}, "service key b'add' is not servable/version"),
        ({"service": "add/0"}, "version 0 is not one of 1..9223372036854775807"),
        ({"service": "add/" + "9" * 20}, "version 99999999999999999999 is not one of 1.."),
        ({"service": "a" * 300 + "/1"}, "service of 302 B exceeds service_key_bytes_max 223"),
        ({"is_extra": 1}, "key 'is_extra' is 1, not a bool"),
        ({"device": "CPU"}, "key 'device' is a str, not a map"),
        ({"device": {"target": "CPU"}}, "key 'id' is missing"),
        ({"methods": {}}, "key 'methods' is a dict, not a list"),
        ({"methods": [["m", ["x"]]]}, "a method is [name, [inputs], [outputs]]"),
        ({"methods": [["", [], []]]}, "method name '' is not a text"),
        ({"methods": [["m" * 256, [], []]]}, "method name of 256 B exceeds method_bytes_max 255"),
        ({"methods": [["m", "x", []]]}, "method m: 'x' is not a list of texts"),
        ({"methods": [["m", [], [1]]]}, "method m: [1] is not a list of texts"),
    ],
)
def test_a_wrong_field_of_ready_is_named(changes, text):
    with pytest.raises(RemoteProtocolError) as error:
        control.unpack_ready(ready_with(**changes))
    assert text in str(error.value)


def test_a_ready_that_does_not_say_whether_it_is_extra_is_of_a_device_worker():
    body = native.unpack_meta(control.pack(READY._replace(is_extra=True))[1])
    assert control.unpack_ready(frames_of(body)).is_extra
    del body["is_extra"]
    assert not control.unpack_ready(frames_of(body)).is_extra


@pytest.mark.parametrize(
    "key", sorted(native.unpack_meta(control.pack(READY)[1]).keys() - {"is_extra", "tensors"})
)
def test_a_missing_field_of_ready_is_named(key):
    body = native.unpack_meta(control.pack(READY)[1])
    del body[key]
    with pytest.raises(RemoteProtocolError, match=f"key '{key}' is missing"):
        control.unpack_ready(frames_of(body))


@pytest.mark.parametrize(("message", "command", "unpack"), EVERY)
@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([], "a control message has 1 body frame, not 0"),
        ([b"\x80", b"\x80"], "a control message has 1 body frame, not 2"),
        ([b"\xc1"], "meta frame is not msgpack"),
        ([b"\x90"], "meta frame is a list, not a map"),
    ],
)
def test_a_body_that_is_not_one_map_is_refused(message, command, unpack, frames, text):
    with pytest.raises(RemoteProtocolError, match=text):
        unpack(frames)


@pytest.mark.parametrize("labels", [None, {}, [1], [["a"]], [["a", 0]], [["a", True]], [[1, 1]]])
def test_labels_of_another_form_are_refused(labels):
    with pytest.raises(RemoteProtocolError, match="key 'labels' is not a list of"):
        control.unpack_share(frames_of({"servable": "add", "shares": [], "labels": labels}))


def test_shares_without_labels_are_understood():
    assert control.unpack_share(frames_of({"servable": "a", "shares": [[1, 2]]})).labels == ()


@pytest.mark.parametrize("shares", [None, {}, [1], [[1]], [[1, -1]], [["1", 1]], [[1, True]]])
def test_shares_of_another_form_are_refused(shares):
    with pytest.raises(RemoteProtocolError, match="key 'shares' is not a list of"):
        control.unpack_share(frames_of({"servable": "add", "shares": shares}))


@pytest.mark.parametrize("started", [3, ["4"], [True]])
def test_tickets_of_another_form_are_refused(started):
    body = {"worker_id": "w", "generation": 1, "reason": "", "started": started}
    with pytest.raises(RemoteProtocolError, match="key 'started' is not a list of tickets"):
        control.unpack_lost(frames_of(body))


def test_welcome_needs_numbers_of_at_least_one():
    with pytest.raises(RemoteProtocolError, match="key 'liveness' is 0"):
        control.unpack_welcome(frames_of({"heartbeat_interval_ms": 500, "liveness": 0}))
    with pytest.raises(RemoteProtocolError, match="key 'heartbeat_interval_ms' is 0"):
        control.unpack_welcome(frames_of({"heartbeat_interval_ms": 0, "liveness": 1}))


def test_packing_a_credit_out_of_bounds_is_our_own_mistake():
    with pytest.raises(AssertionError):
        control.pack(READY._replace(credit=limits.CREDIT_MAX + 1))
