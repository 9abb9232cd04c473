"""The REST dialect of the Open Inference Protocol v2: JSON, and Triton's binary tensors behind it.

    request   frame 0   msgpack map: `model` str, as the URL names it; `json_bytes` int, how much of
                        the body is JSON (MAY be left out: all of it)
              frame 1   the HTTP body
    reply     frame 0   msgpack map: `json_bytes` int, if binary tensors follow the JSON
              then      the JSON, and each binary tensor

An input with the parameter `binary_data_size` has its content behind the JSON, in the order of the
inputs; so have outputs with `binary_data`. Failures are those of `oip`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from protocol import limits, native
from protocol.errors import RemoteProtocolError, RequestError
from protocol.native import Buffer
from protocol.oip_parameters import Echo, Parameters, RequestParameters, echo_of
from protocol.oip_results import OutputTensor, encode_raw, to_outputs
from protocol.oip_tensor import (
    BYTES,
    DTYPE_OF_DATATYPE,
    Content,
    InputHeader,
    as_shape,
    check_count,
    check_header,
    decode_raw,
    plan_inputs,
    to_instances,
)
from protocol.values import EchoedInstances, MethodSignature, RequestSpec, Result

#: An infinity or NaN has no JSON.
_NOT_FINITE = "is not finite, which JSON cannot say; ask for it with binary_data"


# ---------------------------------------------------------------- for the gateway


#: What most requests have, and the meta of most replies.
_NO_PARAMETERS = RequestParameters()
_EMPTY_META = native.pack_meta({})


def pack_request(model: str, json_bytes: int | None, body: bytes) -> list[Buffer]:
    """The body frames of a request. json_bytes: None = all of it."""
    return [_request_meta(model, json_bytes), body]


@lru_cache(maxsize=256)
def _request_meta(model: str, json_bytes: int | None) -> Buffer:
    meta: dict[str, Any] = {"model": model}
    if json_bytes is not None:
        meta["json_bytes"] = json_bytes
    return native.pack_meta(meta)


def unpack_reply(frames: Sequence[Buffer]) -> tuple[bytes, int | None]:
    """The HTTP body of a reply, and how much of it is JSON if not all of it is.

    Raises: RemoteProtocolError.
    """
    if len(frames) == 2 and frames[0] == _EMPTY_META:
        body = frames[1]
        return body if type(body) is bytes else bytes(body), None
    meta = native.unpack_meta(frames[0] if frames else b"")
    json_bytes = meta.get("json_bytes")
    if json_bytes is not None and type(json_bytes) is not int:
        raise RemoteProtocolError(f"key 'json_bytes' is {json_bytes!r:.40}, not a number")
    return b"".join(frames[1:]), json_bytes


def scan_parameters(body: bytes, json_bytes: int | None) -> RequestParameters:
    """The parameters of a request, which cost a parse only if one of them concerns the gateway.

    What is wrong with the JSON is left to the worker.
    """
    text = body if json_bytes is None else body[:json_bytes]
    if b'"timeout"' not in text and b'"priority"' not in text:
        return _NO_PARAMETERS
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return RequestParameters()
    parameters = document.get("parameters") if isinstance(document, dict) else None
    return RequestParameters.read(parameters if isinstance(parameters, dict) else {})


# ---------------------------------------------------------------- requests


def decode_request(frames: Sequence[Buffer], method: MethodSignature) -> EchoedInstances:
    """The instances of a request. Arrays are writable and own their memory.

    Raises: RequestError (malformed, invalid_inputs, unsupported).
    """
    model, text, tail = _split(frames)
    document = _parse(text)
    parameters = RequestParameters.read(_parameters("the request", document))
    outputs = [
        (_name("output", each), _parameters("an output", each))
        for each in _list(document, "outputs", is_needed=False)
    ]
    request_id = document.get("id", "")
    if not isinstance(request_id, str):
        raise _malformed(f"id {request_id!r:.40} is not a text")
    echo = echo_of(method, model, request_id, parameters, outputs)
    headers, contents = [], []
    for item in _list(document, "inputs", is_needed=bool(method.inputs)):
        header, content, tail = _decode_input(item, tail, parameters)
        headers.append(header)
        contents.append(content)
    if tail.nbytes:
        raise _malformed(f"{tail.nbytes} B behind the JSON belong to no input")
    plan = plan_inputs(method, headers)
    echo = echo._replace(is_stacked=plan.is_stacked)
    return EchoedInstances(to_instances(plan, contents), echo)


def _split(frames: Sequence[Buffer]) -> tuple[str, memoryview, memoryview]:
    if len(frames) != 2:
        raise _malformed(f"{len(frames)} frames came, 2 make a request")
    try:
        meta = native.unpack_meta(frames[0])
    except RemoteProtocolError as error:
        raise _malformed(str(error)) from None
    body = memoryview(frames[1])
    json_bytes = meta.get("json_bytes", body.nbytes)
    if type(json_bytes) is not int or not 0 <= json_bytes <= body.nbytes:
        raise _malformed(f"{json_bytes!r:.40} B of JSON are not in a body of {body.nbytes} B")
    return str(meta.get("model", "")), body[:json_bytes], body[json_bytes:]


def _parse(text: memoryview) -> dict[str, Any]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _malformed(str(error)) from None
    if not isinstance(document, dict):
        raise _malformed(f"the document is a {_type(document)}, not an object")
    return document


def _list(document: Mapping[str, Any], key: str, *, is_needed: bool) -> list[dict[str, Any]]:
    items = document.get(key, None if is_needed else [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        found = "missing" if items is None else f"a {_type(items)}"
        raise _malformed(f"{key!r} is {found}, not an array of objects")
    return items


def _name(kind: str, item: Mapping[str, Any]) -> str:
    name = item.get("name")
    if not isinstance(name, str):
        raise _malformed(f"the name of an {kind} is {name!r:.40}, not a text")
    return name


def _parameters(where: str, item: Mapping[str, Any]) -> Parameters:
    parameters = item.get("parameters", {})
    if not isinstance(parameters, dict):
        raise _malformed(f"the parameters of {where} are a {_type(parameters)}, not an object")
    return parameters


def _decode_input(
    item: Mapping[str, Any], tail: memoryview, request: RequestParameters
) -> tuple[InputHeader, Content, memoryview]:
    """An input, and what is left behind the JSON for the next ones. Raises RequestError."""
    name = _name("input", item)
    datatype, shape = item.get("datatype"), item.get("shape")
    if not isinstance(datatype, str):
        raise _malformed(f"input {name!r}: datatype {datatype!r:.40} is not a text")
    if not isinstance(shape, list) or not all(type(length) is int for length in shape):
        raise _malformed(f"input {name!r}: shape {shape!r:.40} is not an array of integers")
    check_header(name, datatype, shape)
    dims = tuple(shape)
    parameters = _parameters(f"input {name!r}", item)
    content_type = request.content_type_of(name, parameters)
    size = parameters.get("binary_data_size")
    header = InputHeader(name, datatype, dims, content_type)
    if size is None:
        return header, _decode_elements(name, datatype, dims, item.get("data")), tail
    if "data" in item:
        raise _invalid(f"input {name!r} has data beside binary_data_size")
    if type(size) is not int or not 0 <= size <= tail.nbytes:
        raise _invalid(
            f"input {name!r}: binary_data_size {size!r:.40} is more than the {tail.nbytes} B that "
            "are left behind the JSON"
        )
    return header, decode_raw(name, datatype, dims, tail[:size]), tail[size:]


def _decode_elements(name: str, datatype: str, dims: tuple[int, ...], elements: object) -> Any:
    if not isinstance(elements, list):
        found = "missing" if elements is None else f"a {_type(elements)}"
        raise _invalid(f"input {name!r}: data is {found}, not an array")
    if datatype == BYTES:
        texts = _flat_texts(name, elements)
        check_count(name, dims, len(texts))
        return texts
    return as_shape(name, _numbers(name, datatype, elements), dims)


def _flat_texts(name: str, elements: list[Any], depth: int = 0) -> list[bytes]:
    texts = []
    for element in elements:
        if isinstance(element, str):
            texts.append(element.encode())
        elif isinstance(element, list) and depth < limits.TENSOR_DIMENSIONS_MAX:
            texts += _flat_texts(name, element, depth + 1)
        else:
            raise _invalid(f"input {name!r}: data has a {_type(element)}, BYTES have texts only")
    return texts


def _numbers(name: str, datatype: str, elements: list[Any]) -> npt.NDArray[Any]:
    """The elements as an array of the datatype, in whatever shape the lists have."""
    dtype: np.dtype[Any] = DTYPE_OF_DATATYPE[datatype]
    try:
        array = np.array(elements)
    except ValueError:
        raise _invalid(f"input {name!r}: data has rows of different lengths") from None
    if not array.size:
        return array.astype(dtype)
    if array.dtype.kind == "f" and dtype.kind == "u":
        array = _large_integers(elements, array)
    given = array.dtype.kind
    if given == "b" and datatype == "BOOL":
        return array
    if given in "iuf" and dtype.kind == "f":
        try:
            with np.errstate(over="raise"):
                return array.astype(dtype)
        except FloatingPointError:
            raise _invalid(f"input {name!r}: data has numbers beyond {datatype}") from None
    if given in "iu" and dtype.kind in "iub":
        least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        low, high = int(array.min()), int(array.max())
        if least <= low and high <= most:
            return array.astype(dtype)
        raise _invalid(
            f"input {name!r}: data has {low if low < least else high}, {datatype} goes from "
            f"{least} to {most}"
        )
    raise _invalid(f"input {name!r}: data has elements that are no {datatype}")


def _large_integers(elements: list[Any], array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The elements as uint64 if they are integers that numpy makes floats of (above int64)."""
    flat = np.array(elements, object).reshape(-1).tolist()
    if not all(type(element) is int for element in flat):
        return array
    try:
        return np.array(flat, np.uint64)
    except OverflowError:  # some are negative as well, so that they fit no datatype
        return array


def _type(value: object) -> str:
    return type(value).__name__


def _malformed(rule: str) -> RequestError:
    return RequestError("malformed", f"body is not an inference request: {rule}")


def _invalid(text: str) -> RequestError:
    return RequestError("invalid_inputs", text)


# ---------------------------------------------------------------- replies


def encode_reply(
    spec: RequestSpec, method: MethodSignature, results: Sequence[Result]
) -> list[Buffer]:
    """A reply: JSON, and the binary tensors.

    Raises: RequestError for the first instance that failed, and for what JSON cannot carry;
    TypeError for a dtype that the wire does not know.
    """
    echo = spec.echo
    assert isinstance(echo, Echo), spec
    tail: list[Buffer] = []
    outputs = []
    for output in to_outputs(method, results, echo.is_stacked, echo.outputs):
        item: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": output.shape,
        }
        if output.name in echo.binary:
            content = encode_raw(output)
            item["parameters"] = {"binary_data_size": memoryview(content).nbytes}
            tail.append(content)
        else:
            is_base64 = output.name in echo.base64 and output.datatype == BYTES
            if is_base64:
                item["parameters"] = {"content_type": "base64"}
            item["data"] = _elements(output, is_base64)
        outputs.append(item)
    document: dict[str, Any] = {
        "model_name": echo.model,
        "model_version": str(method.version or spec.version),
    }
    if echo.id:
        document["id"] = echo.id
    if echo.reply_parameters:
        document["parameters"] = echo.reply_parameters
    text = orjson.dumps(document | {"outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tail:
        return [native.pack_meta({}), text]
    meta = native.pack_meta({"json_bytes": len(text)})
    if len(tail) > limits.BODY_FRAMES_MAX - 2:
        tail = [b"".join(tail)]
    return [meta, text, *tail]


def _elements(output: OutputTensor, is_base64: bool) -> npt.NDArray[Any] | list[str]:
    content = output.content
    if isinstance(content, np.ndarray):
        if content.dtype.kind == "f" and not np.isfinite(content).all():
            raise RequestError("failed", f"output {output.name!r} {_NOT_FINITE}")
        return content.reshape(-1)
    if is_base64:
        return [base64.b64encode(element).decode() for element in content]
    try:
        return [element.decode() for element in content]
    except UnicodeDecodeError:
        raise RequestError(
            "failed",
            f"output {output.name!r} has bytes that are no text; ask for it with binary_data, or "
            "with content_type base64",
        ) from None


def encode_failure(spec: RequestSpec | None, reason: str, message: str) -> list[Buffer]:
    """The failure meta of the native dialect."""
    return native.encode_failure(spec, reason, message)
