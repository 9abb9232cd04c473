"""Bare echoes, the ceilings of what we build on: `python -m bench.echo_servers KIND ADDRESS`.

grpc-sync, grpc-aio: grpcio, any method. zmq-proxy, zmq-python, zmq-direct: an echo worker behind
libzmq's own proxy, behind a broker in Python that drains both sockets, and without a broker.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import grpc.aio
import zmq

from protocol import head as heads

#: Messages that the broker in Python passes on per wake-up.
DRAIN_MAX = 256
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class _Echo(grpc.GenericRpcHandler):
    """Answers every unary call with its request."""

    def __init__(self, is_async: bool) -> None:
        self._is_async = is_async

    def service(self, _details: Any) -> Any:
        """The one handler."""
        return grpc.unary_unary_rpc_method_handler(_echo_aio if self._is_async else _echo)


def _echo(request: bytes, _context: Any) -> bytes:
    return request


async def _echo_aio(request: bytes, _context: Any) -> bytes:
    return request


def _grpc_sync(address: str) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(8), options=OPTIONS)
    server.add_generic_rpc_handlers((_Echo(False),))
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


def _grpc_aio(address: str) -> None:
    import uvloop

    async def serve() -> None:
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((_Echo(True),))
        server.add_insecure_port(address)
        await server.start()
        await server.wait_for_termination()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


# ---------------------------------------------------------------- ZeroMQ


def _socket(context: zmq.Context[Any], kind: int) -> zmq.Socket[Any]:
    socket = context.socket(kind)
    socket.sndhwm = socket.rcvhwm = 0
    return socket


def _answer(socket: zmq.Socket[Any]) -> None:
    """Turn each request into a reply: its head says so, its body comes back."""
    while True:
        client, head, *body = socket.recv_multipart()
        socket.send_multipart([client, head[:3] + bytes((heads.REPLY,)) + head[4:], *body])


def _zmq_direct(address: str) -> None:
    socket = _socket(zmq.Context(), zmq.ROUTER)
    socket.bind(address)
    _answer(socket)


def _brokered(address: str, broker: Callable[[Any, Any], None]) -> None:
    """Run a broker here and the worker in a process of its own."""
    import subprocess

    context: zmq.Context[Any] = zmq.Context()
    front, back = _socket(context, zmq.ROUTER), _socket(context, zmq.DEALER)
    front.bind(address)
    back.bind(address + ".workers")
    command = [sys.executable, "-m", "bench.echo_servers", "zmq-worker", address + ".workers"]
    worker = subprocess.Popen(command)
    threading.Thread(target=worker.wait, daemon=True).start()
    broker(front, back)


def _zmq_worker(address: str) -> None:
    socket = _socket(zmq.Context(), zmq.DEALER)
    socket.connect(address)
    _answer(socket)


def _zmq_python(front: zmq.Socket[Any], back: zmq.Socket[Any]) -> None:
    poller = zmq.Poller()
    poller.register(front, zmq.POLLIN)
    poller.register(back, zmq.POLLIN)
    other = {front: back, back: front}
    while True:
        for source, _ in poller.poll():
            send = other[source].send_multipart
            try:
                for _ in range(DRAIN_MAX):
                    send(source.recv_multipart(zmq.DONTWAIT))
            except zmq.Again:
                continue


KINDS: dict[str, Callable[[str], None]] = {
    "grpc-sync": _grpc_sync,
    "grpc-aio": _grpc_aio,
    "zmq-direct": _zmq_direct,
    "zmq-worker": _zmq_worker,
    "zmq-proxy": lambda address: _brokered(address, zmq.proxy),
    "zmq-python": lambda address: _brokered(address, _zmq_python),
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](sys.argv[2])
