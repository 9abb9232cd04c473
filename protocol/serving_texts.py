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

#: The model itself failed; what the backend said is in the worker's log.
MODEL_PREDICT_FAILED = "Predict Failed"

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


# ---------------------------------------------------------------- stages and models


def stage_failed(tag: str, method: str, stage_index: int, error: str) -> str:
    """A Python stage failed. tag: the user's, or `function_tag`; stage_index begins with 1."""
    return (
        f"Call {tag} Failed, method: '{method}', stage index(begin with 1): {stage_index}, "
        f"error msg: {error}"
    )


def function_tag(servable: str, function: str) -> str:
    """What a Python stage is called where the user gave it no tag."""
    return f"Function '{servable}.{function}'"


def model_inputs_missing(given: int, defined: int) -> str:
    """A model call with a wrong number of inputs."""
    return f"Given model inputs size {given} less than model inputs size {defined}"


def model_input_bytes_mismatch(index: int, given: int, defined: int) -> str:
    """A model input whose byte count is not the model's."""
    return f"Given model input {index} size {given} not match the size {defined} defined in model"


def model_input_dtype_mismatch(index: int, given: str, defined: str) -> str:
    """A model input whose dtype is not the model's. given, defined: numpy names or text/bytes."""
    return (
        f"Given model input {index} data type {kmsi_name(given)} not match the data type "
        f"{kmsi_name(defined)} defined in model"
    )


def kmsi_name(dtype: str) -> str:
    """A dtype as MindSpore Serving's core calls it: `float32` is `kMSI_Float32`.

    dtype: a name of `values.DTYPES`, `string` or `bytes`; anything else is `kMSI_Unknown`.
    """
    return _KMSI_NAMES.get(dtype, "kMSI_Unknown")


_KMSI_NAMES = {
    name: f"kMSI_{name.capitalize()}"
    for name in (
        "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
        "float16", "float32", "float64", "string", "bytes",
    )
}  # fmt: skip


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


def builtin_dtype_unsupported(function: str, dtype: str) -> str:
    """A built-in function (such as Argmax) that has no kernel for the dtype of its input."""
    return f"{function} not support data type {kmsi_name(dtype)}"


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
