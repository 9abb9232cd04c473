"""One door of a running system, with the request that is sent to it and the check of the answer."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench import bodies

HTTP, GRPC, BUS = "http", "grpc", "bus"

#: Of a single call that is checked by value; Ray's first one takes seconds.
CALL_SECONDS_MAX = 60
#: W3's messages are larger than the defaults of clients.
MESSAGE_BYTES_MAX = 128 * 1024 * 1024


@dataclass(frozen=True)
class Endpoint:
    """Where a request goes, and what it is.

    kind: HTTP, GRPC or BUS. door: how the report calls it. body: a whole HTTP body, or one gRPC
    message without its prefix; of the bus, `parts` are its frames. check: raises AssertionError.
    is_exact: every right answer has the same bytes; real models round otherwise in other batches.
    """

    door: str
    kind: str
    address: str
    path: str = ""
    body: bytes = field(default=b"", repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    parts: tuple[bytes, ...] = field(default=(), repr=False)
    check: Callable[[bytes], None] = field(default=lambda _: None, repr=False)
    is_exact: bool = True


def call(endpoint: Endpoint) -> bytes:
    """Send the request once. Raises AssertionError if the answer is an error."""
    if endpoint.kind == HTTP:
        connection = http.client.HTTPConnection(endpoint.address, timeout=CALL_SECONDS_MAX)
        try:
            connection.request("POST", endpoint.path, endpoint.body, dict(endpoint.headers))
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, (answer.status, content[:500])
            return content
        finally:
            connection.close()
    if endpoint.kind == GRPC:
        import grpc

        options = [
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ]
        with grpc.insecure_channel(endpoint.address, options) as channel:
            answered: bytes = channel.unary_unary(endpoint.path)(
                endpoint.body, timeout=CALL_SECONDS_MAX
            )
            return answered
    from bench.load_bus import call_bus

    return call_bus(endpoint)


def check_once(endpoint: Endpoint) -> None:
    """Send the request once and check the answer by value. Raises AssertionError."""
    endpoint.check(call(endpoint))


def wait_until_right(endpoint: Endpoint, is_alive: Callable[[], bool], seconds: float) -> None:
    """Ask until the answer is right. Raises TimeoutError, or RuntimeError if the server ended."""
    import grpc

    deadline = time.monotonic() + seconds
    while True:
        try:
            return check_once(endpoint)
        except (OSError, AssertionError, http.client.HTTPException, grpc.RpcError) as error:
            if not is_alive():
                raise RuntimeError(f"the server ended before {endpoint.door} answered") from error
            if time.monotonic() > deadline:
                raise TimeoutError(f"no right answer in {seconds} s: {error!r}"[:600]) from error
        time.sleep(0.02)


def small_http(address: str, path: str, door: str = "REST", body: bytes | None = None) -> Endpoint:
    """The small request of W1 over HTTP, in the Open Inference Protocol if `body` is not given."""
    tensors = {"x1": bodies.X1, "x2": bodies.X2}
    return Endpoint(
        door,
        HTTP,
        address,
        path,
        bodies.oip_json(tensors) if body is None else body,
        (("Content-Type", "application/json"),),
        check=bodies.check_json(bodies.SUM),
    )


def small_grpc(address: str, model: str, door: str = "gRPC") -> Endpoint:
    """The small request of W1 as ModelInfer with raw contents."""
    tensors = {"x1": bodies.X1, "x2": bodies.X2}
    return Endpoint(
        door,
        GRPC,
        address,
        bodies.INFER_PATH,
        bodies.oip_grpc(model, tensors),
        check=bodies.check_oip_grpc(bodies.SUM),
    )


def large_http(address: str, path: str) -> Endpoint:
    """W3 over HTTP with the binary extension of the Open Inference Protocol."""
    tensor = bodies.large()
    body, json_bytes = bodies.oip_binary({"x": tensor}, "y")
    headers = (
        ("Content-Type", "application/octet-stream"),
        ("Inference-Header-Content-Length", str(json_bytes)),
    )
    check = bodies.check_tail(tensor)
    return Endpoint("binary REST", HTTP, address, path, body, headers, check=check)


def large_grpc(address: str, model: str) -> Endpoint:
    """W3 as ModelInfer with raw contents."""
    tensor = bodies.large()
    body = bodies.oip_grpc(model, {"x": tensor})
    check = bodies.check_oip_grpc(tensor)
    return Endpoint("gRPC", GRPC, address, bodies.INFER_PATH, body, check=check)
