"""A producer with nothing but pyzmq and msgpack, written from docs/PROTOCOL.md alone.

    python examples/zmq_producer.py ipc:///tmp/mindbus-0/producers.ipc [servable method]

sends two instances of two matrices (to `add` `add_common`) and prints what comes back.
"""

import struct
import sys

import msgpack
import zmq

HEAD = struct.Struct("!2sBBHBBQIHBB16s8s")
REQUEST, REPLY = 3, 4


def infer(socket, servable, method, instances, request_id=1, budget_ms=10_000):
    """One request and its reply: a list with one map of outputs per instance."""
    service = f"{servable}/0".encode()  # version 0: the latest
    fixed = (b"MS", 1, REQUEST, 0, 0, 0, request_id, budget_ms, len(instances), 1, len(service))
    head = HEAD.pack(*fixed, bytes(16), bytes(8)) + service + method.encode()
    socket.send_multipart([head, msgpack.packb({"instances": instances})])
    if not socket.poll(budget_ms + 1_000):
        raise TimeoutError("no broker answered")
    head, meta, *tensors = socket.recv_multipart()
    fields = HEAD.unpack_from(head)
    assert (fields[2], fields[6]) == (REPLY, request_id)
    reply = msgpack.unpackb(meta)
    if fields[5] != 0:  # status
        raise RuntimeError(f"{reply['reason']}: {reply['message']}")
    return reply["instances"], reply.get("errors"), tensors


if __name__ == "__main__":
    names = sys.argv[2:4] or ["add", "add_common"]
    producer = zmq.Context.instance().socket(zmq.DEALER)
    producer.linger = 0
    producer.connect(sys.argv[1])
    ones = ["float32", [2, 2], struct.pack("<4f", 1, 1, 1, 1)]
    ramp = ["float32", [2, 2], struct.pack("<4f", 1, 2, 3, 4)]
    answers, _, _ = infer(producer, *names, [{"x1": ones, "x2": ramp}] * 2)
    for answer in answers:
        dtype, shape, content = answer["y"]
        print(dtype, shape, struct.unpack("<4f", content))
