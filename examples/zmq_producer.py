"""A producer of pyzmq and msgpack: zmq_producer.py ipc:///PATH/producers.ipc [SERVABLE METHOD]

It sends two instances of two matrices and prints what comes back. Source: docs/PROTOCOL.md."""

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
    address, *names = sys.argv[1:] or sys.exit(__doc__)
    producer = zmq.Context.instance().socket(zmq.DEALER)
    producer.linger = 0
    producer.connect(address)
    ones, ramp = (["float32", [2, 2], struct.pack("<4f", *v)] for v in ((1,) * 4, (1, 2, 3, 4)))
    inputs = {"x1": ones, "x2": ramp}
    for answer in infer(producer, *(names or ["add", "add_common"]), [inputs] * 2)[0]:
        print(*answer["y"][:2], struct.unpack("<4f", answer["y"][2]))
