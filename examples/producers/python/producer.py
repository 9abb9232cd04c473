"""A producer of pyzmq and msgpack: producer.py ipc:///PATH/producers.ipc [SERVABLE METHOD]

It speaks 7/MDP: asks whether the servable is there, sends two instances of two matrices, and prints
what comes back. Source: docs/PROTOCOL.md §11, and §4 for the values."""

import struct
import sys

import msgpack
import zmq


def ask(address, service, body, timeout_ms=10_000, attempts=3):
    """One request and the body of its reply.

    An attempt without a reply is given up with its socket, as ZeroMQ's guide has it in "Lazy
    Pirate"; the request may then run twice."""
    for _ in range(attempts):
        socket = zmq.Context.instance().socket(zmq.REQ)
        socket.linger = 0
        socket.connect(address)
        try:
            socket.send_multipart([b"MDPC01", service.encode(), body])
            if socket.poll(timeout_ms):
                protocol, _service, *frames = socket.recv_multipart()
                assert protocol == b"MDPC01"
                return frames[0]  # further frames are tensors of 64 KiB or more
        finally:
            socket.close()
    raise TimeoutError(f"no reply from {address} in {attempts} times {timeout_ms} ms")


def infer(address, servable, method, instances, budget_ms=10_000):
    """The outputs of each instance: a list of maps from name to value."""
    request = {"method": method, "budget_ms": budget_ms, "instances": instances}
    body = ask(address, servable, msgpack.packb(request), budget_ms + 1_000)
    reply = msgpack.unpackb(body)
    if reply["status"]:
        raise RuntimeError(f"{reply['reason']}: {reply['message']}")
    if "errors" in reply:
        raise RuntimeError(f"instances failed: {reply['errors']}")
    return reply["instances"]


def main():
    """Entry of the script."""
    address, *names = sys.argv[1:] or sys.exit(__doc__)
    servable, method = names or ("add", "add_common")
    if ask(address, "mmi.service", servable.encode()) != b"200":
        sys.exit(f"nobody serves {servable}")
    ones, ramp = (["float32", [2, 2], struct.pack("<4f", *v)] for v in ((1,) * 4, (1, 2, 3, 4)))
    for outputs in infer(address, servable, method, [{"x1": ones, "x2": ramp}] * 2):
        dtype, shape, content = outputs["y"]
        numbers = struct.unpack(f"<{len(content) // 4}f", content)
        print(dtype, shape, *map("{:g}".format, numbers))


if __name__ == "__main__":
    main()
