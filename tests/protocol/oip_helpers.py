"""Shorthands for tests of the Open Inference Protocol: methods, requests, replies."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from protocol import native, oip, oip_json
from protocol.oip_messages import ModelInferRequest, ModelInferResponse
from protocol.oip_tensor import DATATYPES
from protocol.values import (
    EchoedInstances,
    InstanceSpec,
    MethodSignature,
    MethodTensors,
    RequestSpec,
    Result,
)

SPEC = RequestSpec("add", "add_common", 0)

FLOAT_2X2 = InstanceSpec("float32", (2, 2))

#: Two inputs, one output, of a model with a batch dimension.
BATCHED = MethodSignature(
    "add", "add_common", ("x1", "x2"), ("y",),
    MethodTensors(True, (FLOAT_2X2, FLOAT_2X2), (FLOAT_2X2,)), version=3,
)  # fmt: skip

#: The same of a model without one.
UNBATCHED = BATCHED._replace(tensors=BATCHED.tensors._replace(is_batched=False))

#: A method of Python stages, of which nothing is known.
PYTHON = MethodSignature("digits", "classify", ("image",), ("label", "score"), version=1)

ZEROS = np.zeros((2, 2), np.float32)
ONES = np.ones((2, 2), np.float32)


def request(*inputs: tuple[str, Any], **fields: Any) -> Any:
    """A ModelInferRequest with raw contents: each input is a name and an array."""
    message = ModelInferRequest(model_name="add", **fields)
    for name, array in inputs:
        datatype = DATATYPES[array.dtype.name]
        message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return message


def decode(message: Any, method: MethodSignature = BATCHED) -> EchoedInstances:
    return oip.decode_request([message.SerializeToString()], method)


def reply(instances: EchoedInstances, method: MethodSignature, *results: Result) -> Any:
    """The ModelInferResponse to a request."""
    spec = SPEC._replace(echo=instances.echo)
    (frame,) = oip.encode_reply(spec, method, results)
    return ModelInferResponse.FromString(bytes(frame))


def json_input(name: str, datatype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **more}


def json_request(document: Any, tail: bytes | None = None) -> list[Any]:
    text = document if isinstance(document, bytes) else orjson.dumps(document)
    if tail is None:
        return oip_json.pack_request("add", None, text)
    return oip_json.pack_request("add", len(text), text + tail)


def json_decode(
    document: Any, tail: bytes | None = None, method: MethodSignature = BATCHED
) -> EchoedInstances:
    return oip_json.decode_request(json_request(document, tail), method)


def json_reply(
    instances: EchoedInstances, method: MethodSignature, *results: Result
) -> tuple[Any, bytes]:
    """The document of a reply, and what follows it."""
    spec = SPEC._replace(echo=instances.echo)
    body, json_bytes = oip_json.unpack_reply(oip_json.encode_reply(spec, method, results))
    end = len(body) if json_bytes is None else json_bytes
    return orjson.loads(body[:end]), body[end:]


def failure(frames: list[Any]) -> tuple[str, str]:
    error = native.decode_failure(frames)
    return error.reason, error.message
