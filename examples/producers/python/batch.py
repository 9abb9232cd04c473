"""Many requests at once: batch.py ipc:///PATH/producers.ipc [SERVABLE METHOD]

It speaks the native protocol of docs/PROTOCOL.md §2 to §5, which has what MDP has not: many
requests in one message, replies by number, flags, and a way to take a request back."""

import struct
import sys
import uuid

import msgpack
import zmq

HEAD = struct.Struct("!2sBBHBBQIHBB16s8s")
REQUEST, REPLY, CANCEL = 3, 4, 8
COALESCE, ONE_WAY, KEYED, HIGH, LOW = 1, 8, 16, 32, 64
BUDGET_MS = 10_000


def head(command, number, flags=0, budget_ms=0, frames=0, service=b"", method=b""):
    """The head of one request, or of a command to the broker."""
    fixed = (b"MS", 1, command, flags, 0, 0, number, budget_ms, 0, frames, len(service))
    return HEAD.pack(*fixed, bytes(16), bytes(8)) + service + method


def request(number, servable, method, inputs, flags=0, key=None):
    """One request as frames: head, body, and the key if it has one."""
    body = [msgpack.packb({"instances": [inputs]})] + ([key] if key else [])
    flags |= COALESCE | (KEYED if key else 0)
    service = f"{servable}/0".encode()  # version 0: the latest
    return [head(REQUEST, number, flags, BUDGET_MS, len(body), service, method.encode()), *body]


def replies(socket):
    """(number, reply map) of each reply in the next message; there may be several."""
    if not socket.poll(BUDGET_MS + 1_000):
        raise TimeoutError("no broker answered")
    parts = socket.recv_multipart()
    while parts:
        fields = HEAD.unpack_from(parts[0])
        frames = fields[9]
        if fields[2] == REPLY:  # the broker may ask with a heartbeat whether we are there
            yield fields[6], msgpack.unpackb(parts[1])
        parts = parts[1 + frames :]


def main():
    """Entry of the script."""
    address, *names = sys.argv[1:] or sys.exit(__doc__)
    names = names or ["add", "add_common"]
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.connect(address)
    ones, ramp = (["float32", [2, 2], struct.pack("<4f", *v)] for v in ((1,) * 4, (1, 2, 3, 4)))
    inputs = {"x1": ones, "x2": ramp}

    # A hundred requests in one message; the last ten shall not wait behind the others.
    message = []
    for number in range(1, 101):
        message += request(number, *names, inputs, HIGH if number > 90 else LOW)
    socket.send_multipart(message)
    waiting = set(range(1, 101))
    while waiting:
        for number, reply in replies(socket):
            assert struct.unpack("<4f", reply["instances"][0]["y"][2]) == (2, 3, 4, 5), reply
            waiting.remove(number)
    print("100 answered")

    # Sent twice under one key, as after a lost connection: executed once.
    key = uuid.uuid4().bytes
    for number in (101, 102):
        socket.send_multipart(request(number, *names, inputs, key=key))
    answers = {}
    while len(answers) < 2:
        answers.update(replies(socket))
    first, second = (answers[number].get("reason", "answered") for number in (101, 102))
    print(f"under one key: first {first}, second {second}")

    # Taken back: there is no reply, unless it was on its way already.
    socket.send_multipart([*request(103, *names, inputs), head(CANCEL, 103)])
    # Nobody waits for these; they are computed after this script has ended.
    for number in range(104, 114):
        socket.send_multipart(request(number, *names, inputs, ONE_WAY))
    print("10 left behind")


if __name__ == "__main__":
    main()
