"""The request-time texts of MindSpore Serving, word for word, as functions.

Clients and their tests look for these texts, so odd spacing (`input  shape`, two spaces) is part
of them. MindSpore Serving cuts a text of more than 384 bytes in the middle, sometimes inside of a
UTF-8 character; here no text is ever cut: a client that searches a text finds more, never less.
Source: MindSpore Serving 2.0.2, behaviour of `Predict` and of the RESTful door.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.values import RequestSpec

#: A failed status that has no text of its own.
PREDICT_FAILED = "Predict failed"

MEMORY_EXHAUSTED = "Serving Error: malloc memory failed"

# ---------------------------------------------------------------- whole requests


def request_label(spec: RequestSpec) -> str:
    """The request as texts name it; the version only where one was asked for."""
    label = f"servable({spec.servable}) method({spec.method}) "
    return f"{label} version({spec.version}) " if spec.version > 0 else label


def servable_not_available(spec: RequestSpec) -> str:
    """No such servable, no such version, or all of its workers are gone."""
    return f"Request {request_label(spec)}, servable is not available"


def method_not_available(spec: RequestSpec) -> str:
    """The servable has no such method."""
    return f"Request {request_label(spec)}, method is not available"


def no_instances(servable: str, method: str) -> str:
    """A request with zero instances; the original never answers it through gRPC."""
    return f"Instances count of request cannot be 0, servable: {servable}, method: {method}"


def output_buffers_refused(servable: str, method: str) -> str:
    """The client asks for outputs in shared memory: our own text, the original would trust it."""
    return (
        "Output buffers in shared memory are not supported on a network port, "
        f"servable {servable}, method {method}"
    )


# ---------------------------------------------------------------- inputs


def input_not_found(name: str, servable: str, method: str) -> str:
    """An instance lacks an input of the method."""
    return f"Cannot find input {name} in instance input , servable {servable}, method {method}"


def input_check_failed(name: str, detail: str) -> str:
    """An input is there but wrong; detail: one of the tensor texts below."""
    return f"Instances input {name} check failed, detail: {detail}"


def tensor_shape_invalid(dims: Sequence[int]) -> str:
    """A negative dimension, a dimension after a zero one, or more than an array can have."""
    return f"Tensor check failed: input  shape {list(dims)} invalid"


def tensor_dtype_invalid() -> str:
    """dtype 0 or a number that no release defines."""
    return "Tensor check failed: input data type proto::MS_UNKNOWN invalid"


def tensor_bytes_invalid(size: int) -> str:
    """Content of `size` bytes is not what shape and dtype need."""
    return f"Tensor check failed: input data size {size} invalid"


def tensor_shared_memory_refused() -> str:
    """An input refers to shared memory: our own text, the original would trust it."""
    return "Tensor check failed: input shared memory is not supported on a network port"


def text_count_invalid() -> str:
    """A string or bytes tensor without exactly one entry."""
    return "Instance tensor check failed: bytes or string type shape batch size can only be 1"


def text_shape_invalid(dims: Sequence[int]) -> str:
    """A string or bytes tensor of a shape other than `[]` and `[1]`."""
    return (
        "Instance tensor check failed: bytes or string type input  shape can only be (1,) or empty,"
        f" but given shape is {list(dims)}"
    )


def text_not_utf8() -> str:
    """A string tensor that is not UTF-8: our own text, it kills a worker of the original."""
    return "Instance tensor check failed: string type input is not valid UTF-8"


# ---------------------------------------------------------------- models


def runtime_error(error: str) -> str:
    """A runtime error in the thread that drives the model."""
    return f"Serving Error: runtime error occurred: {error}"


def exception_occurred(error: str) -> str:
    """Any other exception in the thread that drives the model."""
    return f"Serving Error: exception occurred: {error}"


#: No device worker is there to run a model for an extra worker.
NO_DEVICE_WORKER = "There are no available inference processes that occupy devices"


def remote_call_failed(error: str) -> str:
    """A model call of an extra worker was answered with a failure."""
    return f"Remote call model failed: {error}"


# ---------------------------------------------------------------- replies and the RESTful door


def reply_failed(detail: str) -> str:
    """The results are there but cannot be put into a reply."""
    return f"Failed to construct the response: {detail}"


def reply_text_not_utf8(name: str) -> str:
    """Output `name` is a string that has no UTF-8 form (a lone surrogate): our own text."""
    return reply_failed(f"reply string {name} is not valid UTF-8")


def post_only() -> str:
    """An HTTP verb other than POST."""
    return "http message only support POST right now"


def body_empty() -> str:
    """A POST without a body."""
    return "http message invalid"


def body_too_large(body_bytes_max: int) -> str:
    """A POST whose body is over `max_msg_mb_size` MiB; the equal size passes."""
    return f"http message is bigger than {body_bytes_max}"


def parse_failed(detail: str) -> str:
    """A JSON document that is no request; detail: one of the texts of `restful_request`."""
    return f"Parser request failed, {detail}"
